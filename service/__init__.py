"""The job service: HTTP over the engine room in `jobs`."""

import sys
from importlib.util import find_spec
from pathlib import Path


def _refuse_another_jobs() -> None:
    """Say so if `import jobs` would find a module of the user's: what follows would be a riddle."""
    ours = Path(__file__).resolve().parent.parent / "jobs" / "__init__.py"
    try:
        spec = find_spec("jobs")
    except ValueError:  # something put it into sys.modules by hand
        spec = None
    found = spec.origin if spec is not None else None
    if found is not None and Path(found).resolve() == ours:
        return
    sentence = (
        f"{found or 'another module'} has the name of a package of quart-jobs, 'jobs', and is imported in"
        " its place: rename it"
    )
    if Path(sys.argv[0]).name == "quart-jobs":
        raise SystemExit(f"quart-jobs: {sentence}")
    raise ImportError(sentence)


_refuse_another_jobs()
