"""Disks under test: small ones, and full ones."""

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest


class mounted:
    """A file system of its own in a folder, which is made if need be; the test skips where that is not allowed."""

    def __init__(self, folder: Path, options: str) -> None:
        self._folder, self._options = folder, options

    def __enter__(self) -> Path:
        self._folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", self._options, "tmpfs", str(self._folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
        return self._folder

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self._folder)], check=True)


def fill(path: Path) -> None:
    """Take all the space there is."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
