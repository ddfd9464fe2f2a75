"""What is kept of what a job wrote, and whose it is, however the writing and the reading fall together."""

import asyncio
import os
import re
from collections.abc import Iterator
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.engines.job_log import JobLog
from jobs.engines.lanes_output import LaneOutput
from jobs.output import unread

MARK = b"<the mark>"


@given(st.lists(st.binary(max_size=40)), st.integers(1, 60))
def test_the_beginning_and_the_end_are_kept(pieces: list[bytes], cap: int) -> None:
    log = JobLog(cap)
    for piece in pieces:
        log.add(bytes(97 + byte % 26 for byte in piece))
    written = "".join(chr(97 + byte % 26) for byte in b"".join(pieces))
    if len(written) <= cap:
        assert log.text() == written
        return
    head, left_out, tail = re.split(r"\n… (\d+) bytes left out …\n", log.text())
    assert len(head) + len(tail) == cap
    assert len(tail) == log.tail_bytes == cap // 2
    assert head + written[len(head) : len(head) + int(left_out)] + tail == written


@given(st.lists(st.text("a\n\r\0üzö", max_size=9) | st.binary(max_size=9)), st.integers(1, 60))
def test_the_lines_told_are_the_beginning_of_the_log(pieces: list[str | bytes], cap: int) -> None:
    log, told = JobLog(cap), ""
    for piece in pieces:
        log.add(piece.encode() if isinstance(piece, str) else piece)
        fresh = log.fresh_lines()
        assert not fresh or fresh[-1] in "\r\n"
        told += fresh
    assert log.text().encode().startswith(told.encode())
    rest = log.text()[len(told) :].partition("\n…")[0]
    assert not log.room or not set(rest) & {"\r", "\n"}


def test_what_nobody_has_looked_at_is_counted() -> None:
    log = JobLog(10)
    log.add(b"0123456789")
    log.leave_out(1_000)
    log.add(b"end")
    assert log.text() == "01234\n… 1005 bytes left out …\nend"


def test_any_bytes_make_text_that_can_be_stored() -> None:
    log = JobLog(100)
    log.add(b"a\x00b\xffc\xed\xa0\x80d\r\n")
    assert log.text() == "a\ufffdb\ufffdc\ufffd\ufffd\ufffdd\r\n"


class Child:
    """What a child does, a step at a time: each `yield` is a moment at which the service may read."""

    def __init__(self, jobs: list[list[int]], pipe: int) -> None:
        self.frames: list[tuple[str, bool]] = []
        self.texts = [
            "".join(f"{number}" * size for size in sizes) for number, sizes in enumerate(jobs)
        ]
        self._pipe = pipe
        self._steps = self._run(jobs)

    def goes_on(self, steps: int) -> bool:
        return all(next(self._steps, None) is not None for _ in range(steps))

    def _run(self, jobs: list[list[int]]) -> Iterator[bool]:
        unsent: list[tuple[str, bool]] = []
        for number, sizes in enumerate(jobs):
            self.frames += [*unsent, ("begin", False)]
            yield True
            for size in sizes:
                os.write(self._pipe, f"{number}".encode() * size)
                yield True
            marked = unread(self._pipe) > 0
            yield True
            if marked:
                self.frames.append(("mark", False))
                yield True
                os.write(self._pipe, MARK)
                yield True
            unsent = [("end", marked)]
            if number % 3 == 2:  # a batch is over
                self.frames += unsent
                unsent = []
            yield True
        self.frames += unsent


@settings(max_examples=300)
@given(
    st.lists(st.lists(st.integers(1, 30), max_size=3), min_size=1, max_size=9),
    st.lists(st.integers(0, 4), min_size=1).filter(any),
    st.integers(2, 60),
)
def test_every_byte_is_its_jobs_whenever_it_is_read(
    jobs: list[list[int]], pauses: list[int], cap: int
) -> None:
    asyncio.run(_read_between_any_steps(jobs, pauses, cap))


async def _read_between_any_steps(jobs: list[list[int]], pauses: list[int], cap: int) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    child, turns = Child(jobs, writer), cycle(pauses)
    logs: list[str | None] = []

    def catch_up() -> None:
        child.goes_on(next(turns))
        for name, marked in child.frames:
            if name == "begin":
                output.begin()
            elif name == "mark":
                output.mark_follows()
            else:
                logs.append(output.end(marked=marked))
        child.frames.clear()
        child.goes_on(next(turns))

    output = LaneOutput(reader, MARK, cap, catch_up=catch_up)
    while child.goes_on(next(turns)):
        if unread(reader):
            output._read()
    catch_up()
    output.close()
    os.close(reader)
    os.close(writer)
    assert logs == [_log(text, cap) for text in child.texts]


@pytest.mark.parametrize("marked", [False, True])
async def test_what_is_left_at_the_end_of_the_process_is_its_last_jobs(marked: bool) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    output = LaneOutput(reader, MARK, 100, catch_up=lambda: None)
    output.begin()
    os.write(writer, b"the rest")
    if marked:
        output.mark_follows()
        os.write(writer, MARK)
    os.close(writer)
    assert output.close() == "the rest"
    os.close(reader)


def _log(text: str, cap: int) -> str | None:
    log = JobLog(cap)
    log.add(text.encode())
    return log.text() or None
