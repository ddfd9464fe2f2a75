"""The published document held against the real server, by two programs of others that know nothing else."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import ROOT, Running, Starter

TASKS = "tests.apps.contract_tasks"

STREAMS = "/events$"
"""Paths left out of what schemathesis asks: their answers have no end. `test_events` reads them."""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    made = Starter(tmp_path_factory.mktemp("contract"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def open_to_all(start: Starter) -> Running:
    return start.serve("--tasks", TASKS)


@pytest.fixture(scope="module")
def behind_keys(start: Starter) -> tuple[Running, str]:
    """A service that wants a key, and a key."""
    database = {"JOBS_DATABASE": str(start.folder / "keys.db")}
    made = start.quart_jobs(
        "keys", "create", "--name", "ann", "--owner", "ann", "--scopes", "admin", **database
    )
    key = made.says(r"qj_[\w-]+")[0]
    return start.serve("--tasks", TASKS, JOBS_AUTH="required", **database), key


@pytest.mark.timeout(150)
def test_the_document_says_what_the_server_does(open_to_all: Running, tmp_path: Path) -> None:
    _schemathesis(
        open_to_all, tmp_path, "--phases=examples,coverage,fuzzing,stateful", "--seed=1", "-n1"
    )


@pytest.mark.timeout(150)
def test_so_it_does_where_a_key_is_wanted(behind_keys: tuple[Running, str], tmp_path: Path) -> None:
    """With other data each time; the seed is printed if it fails."""
    service, key = behind_keys
    seed = random.randrange(2**32)
    given = f"--header=Authorization: Bearer {key}"
    _schemathesis(
        service, tmp_path, "--phases=examples,fuzzing,stateful", f"--seed={seed}", "-n6", given
    )


def _schemathesis(service: Running, folder: Path, *options: str) -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"),
            *("--checks=all", f"--exclude-path-regex={STREAMS}", "--request-timeout=20"),
            *("--generation-database=none", "--warnings=off", "--no-color", *options),
        ],
        cwd=folder,
        env=os.environ
        | {"SCHEMATHESIS_HOOKS": "tests.apps.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    print(*options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Traceback" not in service.output


USES_THE_CLIENT = """
import asyncio
import sys
from uuid import uuid4

from made_client import AuthenticatedClient, models
from made_client.api.jobs import cancel_job, get_job, get_result, list_jobs, submit_job, submit_text_words


async def returned(client: AuthenticatedClient, job: models.JobObject) -> dict[str, object]:
    result = await get_result.asyncio(job.id, client=client)
    assert isinstance(result, dict), result
    return result


async def main(url: str, key: str) -> None:
    async with AuthenticatedClient(base_url=url, token=key) as client:
        arguments = models.TextWordsArguments(text="the sea is still", minimum=3)
        name = str(uuid4())
        submitted = await submit_text_words.asyncio(client=client, body=arguments, idempotency_key=name)
        assert isinstance(submitted, models.JobObject), submitted
        again = await submit_text_words.asyncio(client=client, body=arguments, idempotency_key=name)
        assert isinstance(again, models.JobObject) and again.id == submitted.id

        ended = await get_job.asyncio(submitted.id, client=client, prefer="wait=20")
        assert isinstance(ended, models.JobObject) and ended.state is models.JobState.SUCCESS, ended
        result = models.Statistics.from_dict(await returned(client, ended))
        assert (result.words, result.longest) == (3, "still")

        pens = [models.Pen(colour=models.Colour.RED)]
        order = models.OrderInput(customer="ann", pens=pens)
        wanted = models.ShopOrderSubmission(
            task="shop.order", args=models.ShopOrderArguments(what=order), priority=3
        )
        made = await submit_job.asyncio(client=client, body=wanted, prefer="wait=20")
        assert isinstance(made, models.JobObject) and made.state is models.JobState.SUCCESS, made
        back = models.OrderOutput.from_dict(await returned(client, made))
        assert (back.customer, back.pens) == ("ann", [models.Pen(colour=models.Colour.RED, width=1.0)])

        later = models.LingerSubmission(
            task="linger", args=models.LingerArguments(seconds=0.1), countdown=60
        )
        waiting = await submit_job.asyncio(client=client, body=later)
        assert isinstance(waiting, models.JobObject), waiting
        page = await list_jobs.asyncio(client=client, state=models.ListJobsState.PENDING)
        assert isinstance(page, models.JobList)
        assert waiting.id in [job.id for job in page.jobs]
        cancelled = await cancel_job.asyncio(waiting.id, client=client)
        assert isinstance(cancelled, models.JobObject)
        assert cancelled.state is models.JobState.REVOKED
        refused = await cancel_job.asyncio(waiting.id, client=client)
        assert isinstance(refused, models.ProblemObject) and refused.type_.endswith("/already-ended")


asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.timeout(150)
def test_a_client_made_from_the_document_does_it_all_in_types(
    behind_keys: tuple[Running, str], tmp_path: Path
) -> None:
    service, key = behind_keys
    (tmp_path / "quiet.yaml").write_text("post_hooks: []\n")
    maker = Path(sys.executable).with_name("openapi-python-client")
    made = _run(
        tmp_path,
        *(maker, "generate", "--url", f"{service.url}/openapi.json", "--meta", "none"),
        *("--output-path", tmp_path / "made_client", "--config", tmp_path / "quiet.yaml"),
    )
    warned = [line for line in made.splitlines() if line.startswith(("WARNING", "Unable"))]
    # JSON Lines are nothing to it; all else it understands.
    assert set(warned) == {"WARNING parsing POST /jobs/batch within jobs."}, made
    (tmp_path / "uses_it.py").write_text(USES_THE_CLIENT)
    _run(
        tmp_path,
        sys.executable,
        "-m",
        "mypy",
        "--config-file=",
        "-p",
        "made_client",
        "-m",
        "uses_it",
    )
    _run(tmp_path, sys.executable, "uses_it.py", service.url, key)


def _run(folder: Path, *command: str | Path) -> str:
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr
