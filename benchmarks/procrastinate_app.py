"""Procrastinate as its users run it: async, its worker woken by the database."""

import os

import procrastinate

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_POSTGRES"])
)


@app.task(name="noop")
async def noop() -> None:
    """Nothing."""
