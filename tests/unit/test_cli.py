"""The command line: what it accepts, and what it says of what it does not."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.keys import new_key, parts
from jobs.settings import Settings
from service import cli

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Invoke]:
    """Runs `quart-jobs …` in an empty folder; nothing of it is left afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    environment = {key: text for key, text in os.environ.items() if not key.startswith("JOBS_")}
    modules = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", environment)
        yield lambda *arguments: CliRunner().invoke(cli.main, arguments)
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_the_version_is_printed(invoke: Invoke) -> None:
    assert invoke("--version").output.startswith("quart-jobs 0.")


def test_every_setting_but_the_secrets_has_a_flag(invoke: Invoke) -> None:
    shown = invoke("serve", "--help").output
    for name in Settings.model_fields:
        assert (f"--{name.replace('_', '-')}" in shown) is (name not in cli.SECRET)
    assert "-fd" not in shown


def test_serving_nothing_names_both_ways(invoke: Invoke) -> None:
    said = invoke("serve")
    assert said.exit_code == 2
    assert "--app module:app" in said.output
    assert "--tasks module" in said.output
    assert invoke("serve", "--app", "a:b", "--tasks", "c").exit_code == 2


def test_a_flag_outranks_the_environment_and_is_seen_by_children(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Settings] = []
    monkeypatch.setattr(cli, "needs_app", seen.append)
    monkeypatch.setattr(cli, "load", lambda _: sys.exit(0))
    os.environ |= {"JOBS_LANES": "5", "JOBS_NICE": "7", "JOBS_TASKS": "other"}
    invoke("worker", "--app", "mine:app", "--lanes", "3", "--allow-network-filesystem")
    (settings,) = seen
    assert (settings.lanes, settings.nice, settings.app, settings.tasks) == (3, 7, "mine:app", ())
    assert settings.allow_network_filesystem
    assert os.environ["JOBS_LANES"] == "3"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--lanes", "many"], "lanes"),
        (["--lanes", "-1"], "lanes"),
        (["--grace", "nan"], "grace"),
        (["--engine", "threads"], "engine"),
        (["--bind", "8000"], "expected HOST:PORT"),
        (["--bind", "localhost:http"], "expected HOST:PORT"),
        (["--bind", "localhost:70000"], "expected HOST:PORT"),
        (["--unknown", "1"], "--unknown"),
    ],
)
def test_a_bad_value_is_a_usage_error_that_names_it(
    invoke: Invoke, arguments: list[str], expected: str
) -> None:
    said = invoke("serve", "--tasks", "mine", *arguments)
    assert said.exit_code == 2
    assert expected in said.output
    assert "Traceback" not in said.output


@pytest.mark.parametrize(
    ("string", "expected"),
    [
        ("absent:app", "there is no module 'absent'"),
        ("broken:app", "'broken' failed to import: ZeroDivisionError: division by zero"),
        ("broken:app", "broken.py, line 2"),
        ("syntax:app", "SyntaxError"),
        ("needs:app", "'needs' failed to import: ModuleNotFoundError: No module named 'absent'"),
        ("exits:app", "'exits' failed to import: SystemExit: 3"),
        ("plain:nothing", "the module 'plain' has no 'nothing'"),
        ("plain:number", "is a int, not a Quart or Flask app"),
        ("plain:make", "write plain:make()"),
        ("plain:fails()", "plain:fails() failed: LookupError: no configuration"),
        ("plain:app", "has no Jobs: add `Jobs(app)`"),
        ("plain", "write module:app or module:factory()"),
    ],
)
def test_an_app_that_cannot_be_loaded_says_why(
    invoke: Invoke, tmp_path: Path, string: str, expected: str
) -> None:
    files = {
        "broken": "x = 1\n1 / 0\n",
        "syntax": "def\n",
        "needs": "import absent\n",
        "exits": "import sys\nsys.exit(3)\n",
        "plain": "from quart import Quart\nnumber = 1\napp = Quart(__name__)\n"
        "def make(): return app\ndef fails(): raise LookupError('no configuration')\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    said = invoke("worker", "--app", string)
    assert said.exit_code == 2
    assert expected in said.output
    assert "Traceback" not in said.output
    assert not list(tmp_path.glob("*.db*"))


def test_a_flask_app_is_served_by_its_own_servers(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from flask import Flask\nfrom jobs import Jobs\napp = Flask(__name__)\nJobs(app)\n"
    )
    said = invoke("serve", "--app", "shop:app", "--bind", "127.0.0.1:0")
    assert said.exit_code == 2
    assert "quart-jobs worker --app shop:app" in said.output


def test_the_traceback_of_a_broken_module_is_shown_on_request(
    invoke: Invoke, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    said = invoke("worker", "--tasks", "broken", "--verbose")
    assert said.exit_code == 2
    assert "Traceback" in said.output
    assert "quart-jobs: the module 'broken' failed to import" in said.output


def test_a_key_is_made_listed_and_revoked(invoke: Invoke) -> None:
    made = invoke("keys", "create", "--name", "ci", "--scopes", "submit,read", "--expires", "90d")
    assert made.exit_code == 0
    text = made.stdout.strip()
    key_id, _ = parts(text) or ("", b"")
    assert f"key {key_id} of 'ci' may read, submit" in made.stderr
    secret = text.rpartition(key_id)[2]
    assert secret not in made.stderr

    admin = invoke("keys", "create", "--name", "root", "--owner", "ann", "--scopes", "admin")
    listed = invoke("keys", "list").output
    assert re.search(rf"{key_id}  ci    ci     read,submit  20\S+ \S+  20\S+ \S+  good\n", listed)
    assert re.search(r" root  ann    admin .* never .* good\n", listed)
    assert secret not in listed
    assert admin.stdout.strip() not in listed

    assert invoke("keys", "revoke", key_id).exit_code == 0
    assert re.search(rf"{key_id} .* revoked\n", invoke("keys", "list").output)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--name", "ci", "--scopes", "submit,write"],
            "one or more of submit, read, cancel, admin",
        ),
        (["--name", "ci", "--scopes", ""], "one or more of submit, read, cancel, admin"),
        (["--name", "ci", "--expires", "90"], "such as 90d"),
        (["--name", "ci", "--expires", "0d"], "such as 90d"),
        (["--name", "ci", "--expires", "9999999w"], "such as 90d"),
        (["--name", ""], "1 to 255 printable characters"),
        ([], "--name"),
    ],
)
def test_a_key_that_cannot_be_made_says_why_and_leaves_no_database(
    invoke: Invoke, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    said = invoke("keys", "create", *arguments)
    assert said.exit_code == 2
    assert expected in said.output
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_leaked_may_be_revoked_by_its_text(invoke: Invoke) -> None:
    text = invoke("keys", "create", "--name", "ci").stdout.strip()
    assert invoke("keys", "revoke", text).exit_code == 0
    assert "revoked\n" in invoke("keys", "list").output


def test_a_key_that_is_not_there_cannot_be_revoked_nor_is_it_shown(invoke: Invoke) -> None:
    _, text = new_key("ci")
    for given in (text, "000000000000"):
        said = invoke("keys", "revoke", given)
        assert said.exit_code == 2
        assert "no API key has that id" in said.output
        assert given not in said.output
