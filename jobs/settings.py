"""Every setting in one table: name, default, help.

Precedence: a command-line flag, then the environment (`JOBS_<NAME>`), then `Jobs(app, <name>=…)`,
then `app.config["JOBS_<NAME>"]`, then the default here.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .errors import ConfigurationError

Names = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """What can be set, and what holds if it is not."""

    model_config = SettingsConfigDict(env_prefix="JOBS_", extra="forbid", frozen=True)

    database: str = Field(
        "jobs.db",
        description="SQLite file: a path, or sqlite:///path. Or postgresql://user@host/name.",
    )
    engine: Literal["lanes", "inline", "celery"] = Field(
        "lanes",
        description="lanes: child processes. inline: this process, for tests; sync tasks cannot be stopped there."
        " celery: Celery's workers.",
    )
    broker: str | None = Field(
        None,
        description="Where Celery's workers hear of jobs: redis://host:6379/0, rediss://…, amqp://user:password@host//.",
    )
    lanes: int | None = Field(
        None,
        ge=0,
        le=1024,
        description="Child processes per service process; default: cores divided by workers; 0: only submit.",
    )
    workers: int = Field(
        1, ge=1, le=256, description="Service processes that share this machine's cores."
    )
    app: str | None = Field(
        None, description="Import string of the app: module:app or module:factory()."
    )
    tasks: Names = Field((), description="Modules with tasks, comma-separated.")
    carry: Names = Field((), description="Names of g that travel with every job, comma-separated.")
    secret_key: SecretStr | None = Field(
        None,
        description="Seals request snapshots at rest; default: the app's secret_key, else a file beside the database.",
    )
    secret_key_fallbacks: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Earlier keys that may still open snapshots, comma-separated."
    )
    grace: float = Field(
        10.0, ge=0, le=3600, description="Seconds that running jobs have to finish at shutdown."
    )
    stop_grace: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="Seconds between asking a job to stop (cancel, timeout) and killing it.",
    )
    nice: int = Field(
        19,
        ge=0,
        le=19,
        description="Niceness of the child processes, so that jobs do not starve the API.",
    )
    recycle_after_jobs: int = Field(
        0, ge=0, description="Jobs after which a child process is replaced; 0: never."
    )
    recycle_after_mb: int | None = Field(
        None,
        ge=0,
        description="MiB by which a child process may grow; default: its share of half the memory; 0: any number.",
    )
    max_crashes: int = Field(
        3,
        ge=1,
        le=100,
        description="Attempts of one job that may kill their child before it fails.",
    )
    auth: Literal["auto", "required", "off"] = Field(
        "auto",
        description="Who may use the job API. required: who has an API key. off: anyone."
        " auto: anyone on this machine, until there is a key.",
    )
    max_args_bytes: int = Field(
        262_144, ge=1, description="Largest arguments of one job, in bytes of JSON."
    )
    max_result_bytes: int = Field(
        8_388_608, ge=1, description="Largest result of one job, in bytes of JSON."
    )
    capture_output: bool = Field(
        True,
        description="Keep what a job writes to stdout, stderr and its logs; false: it goes where the service's goes.",
    )
    max_log_bytes: int = Field(
        1_048_576, ge=1, description="Most that is kept of one attempt's output, in bytes."
    )
    max_body_bytes: int = Field(
        1_048_576, ge=1, description="Largest request body that the job API reads."
    )
    max_batch_bytes: int = Field(
        16_777_216, ge=1, description="Largest request body of POST /jobs/batch."
    )
    max_queued: int = Field(
        100_000, ge=1, description="Jobs that may wait to run; further ones are refused (503)."
    )
    max_queued_per_owner: int | None = Field(
        None,
        ge=1,
        description="Jobs of one owner that may wait to run; further ones are refused (429); default: any number.",
    )
    max_queued_bytes: int | None = Field(
        None,
        ge=1,
        description="Bytes that the waiting jobs may have, arguments and sealed requests together; default: any.",
    )
    max_queued_bytes_per_owner: int | None = Field(
        None,
        ge=1,
        description="... and those of one owner; further ones are refused (429); default: any.",
    )
    body_timeout: float = Field(
        30.0, gt=0, le=3600, description="Seconds that a body which the job API reads may take."
    )
    keep_alive_timeout: float = Field(
        5.0,
        gt=0,
        le=3600,
        description="Seconds that a connection may be idle, and that the head of a request may take.",
    )
    max_headers: int = Field(100, ge=1, description="Most header fields of one request.")
    max_header_bytes: int = Field(
        32_768, ge=1, description="Largest header fields of one request, in bytes together."
    )
    max_url_bytes: int = Field(
        8192, ge=1, description="Longest path and query of one request, in bytes together."
    )
    max_requests: int = Field(
        1000,
        ge=1,
        description="Requests that one process answers at one time, streams and websockets aside.",
    )
    max_streams: int = Field(
        2000, ge=0, description="Event streams that one process has open at one time."
    )
    heartbeat: float = Field(
        15.0,
        gt=0,
        le=3600,
        description="Seconds without an event after which a stream sends a comment, so that proxies keep it open.",
    )
    rate_limit: str | None = Field(
        None,
        pattern=r"^[1-9][0-9]{0,8}/[smh]$",
        description="Requests that one client may send to one process, each API key or, without one, each address:"
        " 100/s, 600/m or 50/h; default: any.",
    )
    rate_burst: int | None = Field(
        None,
        ge=1,
        description="... and how many of them at once; default: the number in rate_limit.",
    )
    busy_timeout: float = Field(
        5.0,
        ge=0,
        le=60,
        description="Seconds a write waits for another process before it answers busy.",
    )
    ballast_bytes: int = Field(
        8_388_608,
        ge=0,
        description="Disk space kept back, so that a full disk can still record how jobs end.",
    )
    retention: float = Field(
        604_800.0, gt=0, description="Seconds that an ended job and its result are kept."
    )
    allow_network_filesystem: bool = Field(
        False,
        description="Open a database on NFS, SMB or the like although SQLite's WAL is not safe there.",
    )

    @field_validator("tasks", "carry", "secret_key_fallbacks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @property
    def lane_count(self) -> int:
        """How many lanes this process has."""
        if self.lanes is not None:
            return self.lanes
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return max(1, (cores or 1) // self.workers)

    @classmethod
    def load(
        cls,
        *,
        arguments: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> "Settings":
        """Settings from the environment, where the command line puts its flags, and from these.

        Raises `ConfigurationError` naming the setting that is wrong.

        `config` is an app's configuration; its keys that begin with `JOBS_` count."""
        lower = {
            key.removeprefix("JOBS_").lower(): value
            for key, value in (config or {}).items()
            if key.startswith("JOBS_")
        }
        lower |= arguments or {}
        in_environment = {name for name in cls.model_fields if f"JOBS_{name.upper()}" in os.environ}
        given = {key: value for key, value in lower.items() if key not in in_environment}
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "settings"
            if first["type"] == "extra_forbidden":
                raise ConfigurationError(f"no setting is named {name!r}") from None
            shown = "" if "secret" in name else f", not {first['input']!r}"
            raise ConfigurationError(
                f"setting {name!r} (JOBS_{name.upper()}): {first['msg']}{shown}"
            ) from None
