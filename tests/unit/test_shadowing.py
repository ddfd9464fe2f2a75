"""A user's module with the name of one of our packages is detected and named."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.errors import ShadowedModule
from jobs.shadowing import check_shadowing

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["jobs", "service"])
@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"])
def test_a_module_earlier_on_the_path_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    file = tmp_path / form.format(name)
    file.parent.mkdir(exist_ok=True)
    file.touch()
    check_shadowing()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ShadowedModule, match="rename it") as caught:
        check_shadowing()
    assert str(file) in str(caught.value)


def test_the_current_folder_counts_when_it_is_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "service.py").touch()
    monkeypatch.chdir(tmp_path)
    check_shadowing()
    monkeypatch.syspath_prepend("")
    with pytest.raises(ShadowedModule, match=r"service\.py"):
        check_shadowing()


def test_a_module_later_on_the_path_or_a_folder_of_data_is_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs.py").touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "first" / "service").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "first")
    check_shadowing()


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code as a program whose folder is searched first, like one started there."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = ['', {str(ROOT)!r}]\n{code}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.mark.parametrize("form", ["jobs.py", "jobs/__init__.py"])
def test_the_service_names_a_module_imported_in_place_of_jobs(tmp_path: Path, form: str) -> None:
    file = tmp_path / form
    file.parent.mkdir(exist_ok=True)
    file.touch()
    done = run("import service.app", tmp_path)
    assert done.returncode == 1
    assert f"ImportError: {file} has the name" in done.stderr.splitlines()[-1]


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "jobs.py"
    file.touch()
    done = run("sys.argv[0] = '/usr/bin/quart-jobs'\nimport service.cli", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"quart-jobs: {file} has the name")
    assert done.stderr.count("\n") == 1


def test_our_own_packages_are_imported_without_complaint(tmp_path: Path) -> None:
    done = run("import service, jobs", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
