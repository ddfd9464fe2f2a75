"""What a process tells the others that share its jobs: who it is, of which release, and what it runs."""

from pydantic import BaseModel, ConfigDict, ValidationError


class Peer(BaseModel):
    """One process with the jobs open. Written by one release and read by another: what is not known is skipped."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str  #: the claimant, as in an attempt's `worker`
    release: str  #: of quart-jobs
    schema_version: int  #: the newest that it knows
    engine: str  #: that of its settings
    lanes: int  #: how many jobs it runs at one time; 0: it only takes them in, or announces them
    host: str
    pid: int
    opened_at: int  #: ms
    tasks: tuple[str, ...]  #: names, sorted

    @property
    def runs_jobs(self) -> bool:
        """Whether it does."""
        return self.lanes > 0

    def __str__(self) -> str:
        what = "worker" if self.runs_jobs else "service"
        return f"the {what} {self.pid} on {self.host}"


class Peers(BaseModel):
    """All of them, and the version that the schema of the database has."""

    model_config = ConfigDict(frozen=True)

    schema_version: int
    processes: tuple[Peer, ...]

    def having(self, task: str) -> list[Peer]:
        """Those that run jobs of this task."""
        return [peer for peer in self.processes if peer.runs_jobs and task in peer.tasks]


def read_peers(rows: list[tuple[int, str | None, str | None]]) -> Peers:
    """Of rows of: schema version, name, what it says."""
    found = []
    for _, name, about in rows:
        try:
            found.append(Peer.model_validate_json(about or ""))
        except ValidationError:
            if name is not None:  # a later release says it in another way
                found.append(_stranger(name))
    return Peers(schema_version=rows[0][0], processes=tuple(found))


def _stranger(name: str) -> Peer:
    return Peer(
        name=name,
        release="unknown",
        schema_version=0,
        engine="unknown",
        lanes=0,
        host="unknown",
        pid=0,
        opened_at=0,
        tasks=(),
    )
