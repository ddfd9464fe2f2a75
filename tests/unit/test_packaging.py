"""What `pip install` brings: everything, and it works without the source tree."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel holds."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=50)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_the_wheel_carries_every_file_that_is_read_at_run_time(installed: Path) -> None:
    for package in ("jobs", "service"):
        sources = {
            path.relative_to(ROOT)
            for path in (ROOT / package).rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }
        assert {str(path) for path in sources if not (installed / path).exists()} == set()
    for kind in ("sqlite", "postgres"):
        migrations = {path.name for path in (ROOT / "migrations" / kind).glob("*.sql")}
        assert migrations
        carried = (installed / "jobs/migrations" / kind).glob("*.sql")
        assert {path.name for path in carried} == migrations


def test_the_wheel_carries_nothing_else(installed: Path) -> None:
    top = {path.name for path in installed.iterdir()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"jobs", "service"}


def test_the_installed_command_migrates_a_database_of_its_own(
    installed: Path, tmp_path: Path
) -> None:
    code = "import service.cli, sys; print(service.cli.__file__); service.cli.main()"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code, "migrate", "--database", "jobs.db"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(str(installed))
    assert (tmp_path / "jobs.db").exists()
