"""Whether a module of the user's hides one of the packages `jobs` and `service`, which have common names."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import ShadowedModule

PACKAGES = ("jobs", "service")


def check_shadowing(names: Iterable[str] = PACKAGES) -> None:
    """Raise `ShadowedModule`, naming the file, if one on `sys.path` would be imported here or in a child
    process in place of a package of ours."""
    ours = Path(__file__).resolve().parent.parent
    for name in names:
        package = ours / name / "__init__.py"
        found = next(_candidates(name), package)
        if found != package:
            raise ShadowedModule(
                f"{found} has the name of a package of quart-jobs, {name!r}, and would be imported in its"
                " place: rename it"
            )


def _candidates(name: str) -> Iterator[Path]:
    for entry in sys.path:
        folder = Path(entry).resolve()  # "" is the current folder
        for file in (folder / name / "__init__.py", folder / f"{name}.py"):
            if file.is_file():
                yield file.resolve()
