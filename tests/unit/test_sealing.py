"""Snapshots at rest can be read with the right key, for the right job, and not otherwise."""

import logging
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import BadContext, ConfigurationError
from jobs.sealing import Sealer, find_keys
from jobs.settings import Settings


@given(st.binary(max_size=200), st.text("0123456789abcdef-", max_size=36))
def test_what_was_sealed_opens_again_for_its_job_alone(text: bytes, job_id: str) -> None:
    sealer = Sealer(["key"])
    blob = sealer.seal(job_id, text)
    assert sealer.open(job_id, blob) == text
    with pytest.raises(BadContext, match="another job"):
        sealer.open(job_id + "0", blob)


def test_nothing_readable_is_left_and_no_two_are_alike() -> None:
    sealer = Sealer(["key"])
    first, second = (sealer.seal("id", b"canary" * 20) for _ in range(2))
    assert b"canary" not in first
    assert b"key" not in first
    assert first != second


def test_any_change_is_noticed() -> None:
    sealer = Sealer(["key"])
    blob = sealer.seal("id", b"text")
    for index in range(len(blob)):
        changed = bytearray(blob)
        changed[index] ^= 1
        with pytest.raises(BadContext):
            sealer.open("id", bytes(changed))
        with pytest.raises(BadContext):
            sealer.open("id", blob[:index])


def test_keys_can_be_changed() -> None:
    old = Sealer(["old"]).seal("id", b"text")
    both = Sealer(["new", b"old"])
    assert both.open("id", old) == b"text"
    assert Sealer(["new"]).open("id", both.seal("id", b"x")) == b"x"
    with pytest.raises(BadContext, match="JOBS_SECRET_KEY_FALLBACKS"):
        Sealer(["new"]).open("id", old)


@pytest.mark.parametrize("keys", [[], [""], ["a", b""]])
def test_an_empty_key_is_refused(keys: list[Any]) -> None:
    with pytest.raises(ConfigurationError):
        Sealer(keys)


def keys(
    database: Path, app: str | bytes | None = None, fallbacks: Any = (), **settings: Any
) -> list[str]:
    return find_keys(Settings.load(arguments=settings), app, fallbacks, database)


def test_the_setting_wins_then_the_app_then_a_file(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    assert keys(database, "app", secret_key="set", secret_key_fallbacks="a,b") == ["set", "a", "b"]
    assert keys(database, "app", ["older", b"oldest"]) == ["app", "older", "oldest"]
    assert keys(database, b"\xff") == ["ÿ"]
    assert list(tmp_path.iterdir()) == []
    [made] = keys(database, "")
    assert len(made) == 64


def test_the_key_file_is_made_once_for_the_owner_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = os.umask(0)
    try:
        with caplog.at_level(logging.INFO, "jobs"):
            first = keys(tmp_path / "jobs.db")
            again = keys(tmp_path / "jobs.db")
    finally:
        os.umask(before)
    file = tmp_path / "jobs.db.key"
    assert first == again == [file.read_text().strip()]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]
    assert len(caplog.records) == 1
    assert first[0] not in caplog.text


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    keys(tmp_path / "jobs.db")
    (tmp_path / "jobs.db.key").chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        keys(tmp_path / "jobs.db")


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64])
def test_a_key_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "jobs.db.key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"key file .*jobs\.db\.key"):
        keys(tmp_path / "jobs.db")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="key file"):
        keys(tmp_path / "missing" / "jobs.db")


def test_processes_that_start_together_have_one_key(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from jobs.sealing import find_keys;"
        "from jobs.settings import Settings; sys.stdin.read();"
        f"print(find_keys(Settings(), None, (), Path({str(tmp_path / 'jobs.db')!r})))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        for _ in range(4)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    said = {process.communicate(timeout=50)[0] for process in started}
    assert len(said) == 1
    assert len(list(tmp_path.iterdir())) == 1


ROOT = Path(__file__).parents[2]
