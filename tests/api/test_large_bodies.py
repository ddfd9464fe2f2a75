"""A client that sends its whole body before it reads gets its 413, from a real server."""

import asyncio
import http.client
import json
import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from quart import Quart

from jobs.settings import Settings
from service.api import body
from service.app import create_app
from tests.serving import serving

SIZE = 3_000_000
ENOUGH = 1_200_000  #: to be refused
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def app(settings: Settings) -> Quart:
    """Not yet started: the server does that."""
    return create_app(settings)


@pytest.fixture
async def server(app: Quart) -> AsyncIterator[tuple[str, int]]:
    async with serving(app) as url:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        yield parts.hostname, parts.port


def _chunks() -> Iterator[bytes]:
    yield b'{"value": "'
    for _ in range(SIZE // 10_000):
        yield b"x" * 10_000
    yield b'"}'


def _sends_all_then_reads(server: tuple[str, int], whole: bytes) -> bytes:
    """What a plain socket reads that looks at the answer only when it has written everything, however
    early the answer came."""
    with socket.create_connection(server, timeout=20) as sock:
        sock.sendall(whole[:ENOUGH])
        select.select([sock], [], [], 20)
        sock.sendall(whole[ENOUGH:])
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
            if b"\r\n\r\n" in answer and answer.endswith(b"}"):
                break
    return answer


@pytest.mark.parametrize(
    ("path", "media", "status"),
    [("/jobs", "application/json", 413), ("/tasks/api.echo/jobs", "application/json", 413),
     ("/jobs", "text/plain", 415), ("/tasks/none/jobs", "application/json", 404),
     ("/nothing", "application/json", 404), ("/livez", "application/json", 405)],
)  # fmt: skip
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_socket_that_writes_everything_first_reads_the_answer(
    server: tuple[str, int], path: str, media: str, status: int, chunked: bool
) -> None:
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {SIZE}"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media}\r\n{length}\r\n\r\n"
    payload = b"x" * SIZE
    if chunked:
        payload = b"%x\r\n%b\r\n0\r\n\r\n" % (SIZE, payload)
    answer = await asyncio.to_thread(_sends_all_then_reads, server, head.encode() + payload)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == status


@pytest.mark.parametrize("chunked", [False, True])
async def test_pythons_own_client_reads_the_answer_and_goes_on(
    server: tuple[str, int], chunked: bool
) -> None:
    def run() -> None:
        with closing(http.client.HTTPConnection(*server, timeout=20)) as connection:
            whole = _chunks() if chunked else b"".join(_chunks())
            connection.request("POST", "/tasks/api.echo/jobs", whole, JSON, encode_chunked=chunked)
            answer = connection.getresponse()
            assert answer.status == 413
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert json.loads(answer.read())["type"] == "/problems/too-large"
            # The body was read to its end, so the connection is still good.
            connection.request("POST", "/tasks/api.echo/jobs", b'{"value": 1}', JSON)
            assert connection.getresponse().status == 202

    await asyncio.to_thread(run)


async def test_a_body_that_comes_in_pieces_is_whole(server: tuple[str, int]) -> None:
    payload = b'{"value": "%b"}' % (b"0123456789" * 10_000)

    def run() -> None:
        with (
            closing(http.client.HTTPConnection(*server, timeout=20)) as slow,
            closing(http.client.HTTPConnection(*server, timeout=20)) as other,
        ):
            slow.putrequest("POST", "/tasks/api.echo/jobs")
            slow.putheader("Content-Type", "application/json")
            slow.putheader("Content-Length", str(len(payload)))
            slow.endheaders()
            for start in (0, 1, 70_000):
                # Its answer means that the server has seen all that was sent before.
                other.request("GET", "/livez")
                assert other.getresponse().read()
                slow.send(payload[start : {0: 1, 1: 70_000, 70_000: None}[start]])
            answer = slow.getresponse()
            job = json.loads(answer.read())
            assert answer.status == 202, job
            while job["state"] != "SUCCESS":
                other.request("GET", job["links"]["self"])
                job = json.loads(other.getresponse().read())
            other.request("GET", job["links"]["result"])
            assert other.getresponse().read() == json.dumps("0123456789" * 10_000).encode()

    await asyncio.to_thread(run)


async def test_a_client_that_never_ends_is_left_after_its_bounds(
    server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "LINGER_SECONDS", 0.2)

    def run() -> bytes:
        with socket.create_connection(server, timeout=20) as sock:
            sock.sendall(
                b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 9000000\r\n\r\n{"
            )
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
            return answer

    answer = await asyncio.to_thread(run)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 413


async def test_a_client_that_sends_without_end_is_left_after_so_many_bytes(
    server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "LINGER_BYTES", 2_000_000)

    def run() -> int:
        sent = 0
        with socket.create_connection(server, timeout=20) as sock:
            sock.sendall(
                b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            try:
                while sent < 200_000_000:
                    sock.sendall(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
                    sent += 100_000
            except OSError:
                pass
        return sent

    assert await asyncio.to_thread(run) < 100_000_000


async def test_a_hang_up_in_the_middle_of_a_body_leaves_the_server_well(
    server: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    def run() -> int:
        for length in (100, 9_000_000):
            with socket.create_connection(server, timeout=20) as sock:
                sock.sendall(
                    b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n{" % length
                )
        with closing(http.client.HTTPConnection(*server, timeout=20)) as connection:
            connection.request("GET", "/livez")
            return connection.getresponse().status

    assert await asyncio.to_thread(run) == 200
    assert "Traceback" not in caplog.text
