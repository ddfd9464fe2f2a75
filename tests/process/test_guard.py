"""What `quart-jobs serve` does not let through to any app, and who it does not wait for."""

import asyncio
import http.client
import json
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Self

import pytest

from jobs.keys import new_key
from jobs.settings import Settings
from service import key_commands
from tests.running import PATIENCE, Running, Starter, starter, until

start = pytest.fixture(starter)

APP = """
import asyncio
from quart import Quart, Response, request, websocket
from jobs import Jobs, task
from service.api import blueprint

@task
def size(text: str) -> int:
    return len(text)

app = Quart(__name__)
Jobs(app)
app.register_blueprint(blueprint)

reached = []
inner = app.asgi_app

async def noted(scope, receive, send):
    if scope["type"] != "lifespan":
        reached.append(scope["path"])
    await inner(scope, receive, send)

app.asgi_app = noted

@app.get("/reached")
async def what_was_reached():
    return reached

@app.route("/own/<path:_>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def own(_):
    return await request.get_data() or "fine"

@app.get("/held")
async def held():
    await asyncio.sleep(60)
    return "late"

@app.get("/events")
async def events():
    async def ever():
        while True:
            yield b"data: tick\\n\\n"
            await asyncio.sleep(0.05)
    response = Response(ever(), content_type="text/event-stream")
    response.timeout = None
    return response

@app.websocket("/socket")
async def socket():
    await websocket.accept()
    while True:
        await websocket.send(await websocket.receive())
"""

HANDSHAKE = (
    b"GET /socket%b HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An app with routes of its own and the job API, served as it is by default."""
    made = Starter(tmp_path_factory.mktemp("guard"))
    running = served(made)
    yield running
    made.close()
    assert "Traceback" not in running.output


def served(start: Starter, **settings: str) -> Running:
    start.write("mine.py", APP)
    return start.serve("--app", "mine:app", JOBS_LANES="0", **settings)


class Answers:
    """The answers on one connection on which `sent` was sent, one by one."""

    def __init__(self, service: Running, sent: bytes) -> None:
        self._socket = service.connect()
        with suppress(ConnectionError):  # a server that refuses may close before it has read all
            self._socket.sendall(sent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def next(self, method: str = "GET") -> tuple[int, http.client.HTTPMessage, bytes]:
        # Unbuffered, so that a second answer is left for the next one to read.
        response = http.client.HTTPResponse(self._socket, method=method)
        response.fp = self._socket.makefile("rb", buffering=0)
        response.begin()
        body = b"" if method == "HEAD" else response.fp.read(response.length or 0)
        return response.status, response.headers, body or b""

    def problem(self, status: int, slug: str) -> tuple[http.client.HTTPMessage, dict[str, Any]]:
        found, headers, body = self.next()
        assert found == status, (found, body)
        assert headers["Content-Type"] == "application/problem+json"
        assert headers["Cache-Control"] == "no-store"
        document = json.loads(body)
        assert (document["status"], document["type"]) == (status, f"/problems/{slug}")
        assert document["title"]
        assert document["detail"]
        return headers, document

    def ended(self) -> None:
        """The server closes, and has said no more."""
        with suppress(ConnectionResetError):
            assert self._socket.recv(65536) == b""

    def sends(self, more: bytes) -> None:
        self._socket.sendall(more)

    def sends_until_answered(self, byte: bytes) -> None:
        """One byte after the other, until the server has said something or has closed."""
        while not select.select([self._socket], [], [], 0.05)[0]:
            self.sends(byte)


def refused(service: Running, sent: bytes, status: int, slug: str) -> tuple[Any, Any]:
    with Answers(service, sent) as answers:
        found = answers.problem(status, slug)
        assert service.get(found[1]["type"]).status == 200, "the problem's address explains it"
        return found


def test_an_ordinary_request_passes(service: Running) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        assert service.ask(method, "/own/ordinary").body == b"fine"
    accepted = service.post("/tasks/mine.size/jobs", {"text": "a"})
    assert accepted.status == 202
    for name in accepted.headers:
        assert not name.startswith("RateLimit"), "there is no limit of that kind by default"


# --- what a request is made of


@pytest.mark.parametrize("path", ["/own/smuggled", "/jobs", "/livez"])
@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\nX-Other: 1\r\ncontent-length: 6\r\n",
    ],
)
def test_a_body_framed_in_two_ways_is_refused_and_what_follows_it_is_not_read(
    service: Running, path: str, framing: bytes
) -> None:
    second = b"GET /own/second HTTP/1.1\r\nHost: a\r\n\r\n"
    sent = b"POST %b HTTP/1.1\r\nHost: a\r\n%b\r\n0\r\n\r\n" % (path.encode(), framing)
    with Answers(service, sent + second) as answers:
        headers, _ = answers.problem(400, "malformed-request")
        assert headers["Connection"] == "close"
        answers.ended()
    reached = service.get("/reached").json()
    assert "/own/smuggled" not in reached
    assert "/own/second" not in reached


def test_a_coded_body_of_http_1_0_is_refused(service: Running) -> None:
    sent = b"POST /own/old HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with Answers(service, sent) as answers:
        answers.problem(400, "malformed-request")
        answers.ended()
    assert "/own/old" not in service.get("/reached").json()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /own/bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /own/bad HTTP/1.1\r\n\r\n",
        b"GET /own/bad HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /own/bad HTTP/1.1\r\nHost: a\r\nX-Bad\x00: 1\r\n\r\n",
        b"GET /own/bad HTTP/1.1\r\nHost: a\r\nX-Bad: \x00\r\n\r\n",
        b"GET /own/b ad HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /own/bad\r\n\r\n",
        b"POST /own/bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /own/bad HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /own/bad HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 the first bytes of TLS\r\n\r\n",
    ],
)
def test_a_head_that_is_not_http_is_refused(service: Running, sent: bytes) -> None:
    with Answers(service, sent) as answers:
        headers, _ = answers.problem(400, "malformed-request")
        assert headers["Connection"] == "close"
        answers.ended()
    assert "/own/bad" not in service.get("/reached").json()


@pytest.mark.parametrize("body", [b"5\nhello\r\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"x\r\n"])
def test_chunks_that_are_not_framed_by_the_book_are_refused(service: Running, body: bytes) -> None:
    head = b"POST /own/chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Answers(service, head + body) as answers:
        answers.problem(400, "malformed-request")
        answers.ended()


def test_lines_of_a_head_may_end_in_a_bare_line_feed(service: Running) -> None:
    """RFC 9112, 2.2 leaves that to the recipient; no second reading of the head comes of it."""
    with Answers(service, b"GET /own/bare HTTP/1.1\nHost: a\nX-One: 1\n\n") as answers:
        assert answers.next()[0] == 200


@pytest.mark.parametrize(
    "method", ["CONNECT", "PROPFIND", "MADE-UP", "G", "get", "Post", "delete", "head"]
)
@pytest.mark.parametrize("path", ["/own/method", "/jobs", "/livez"])
def test_a_method_that_is_none_of_http_or_not_in_capitals_is_not_implemented(
    service: Running, method: str, path: str
) -> None:
    sent = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    refused(service, sent, 501, "not-implemented")
    assert "/own/method" not in service.get("/reached").json()


def test_query_is_the_apps_to_answer(service: Running) -> None:
    assert service.ask("QUERY", "/own/query", {}).status == 405
    assert "/own/query" in service.get("/reached").json()
    refused = service.ask("QUERY", "/jobs", {})
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD, OPTIONS, POST")


def test_trace_is_refused_and_the_methods_there_are_are_named(service: Running) -> None:
    sent = b"TRACE /own/trace HTTP/1.1\r\nHost: a\r\n\r\n"
    headers, document = refused(service, sent, 405, "method-not-allowed")
    assert headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, QUERY"
    assert document["instance"] == "/own/trace"
    assert "/own/trace" not in service.get("/reached").json()


@pytest.mark.parametrize(
    ("target", "status"),
    [(b"/own/x HTTP/2.0", 505), (b"/own/%b HTTP/1.1" % (b"x" * 8192), 414)],
)
def test_head_is_refused_without_a_body(service: Running, target: bytes, status: int) -> None:
    with Answers(service, b"HEAD %b\r\nHost: a\r\nConnection: close\r\n\r\n" % target) as answers:
        assert answers.next("HEAD")[0] == status
        answers.ended()


def test_a_coding_of_the_body_that_is_not_known_is_not_implemented(service: Running) -> None:
    sent = b"POST /own/gzip HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    refused(service, sent, 501, "not-implemented")


def test_http_2_is_not_spoken_without_tls(service: Running) -> None:
    """Through a proxy that passes the upgrade on, it would be a way round the proxy's rules."""
    upgrade = (
        b"GET /own/plain HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    with Answers(service, upgrade) as answers:
        assert answers.next()[::2] == (200, b"fine")
    refused(service, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http-version")


def test_a_second_request_in_the_same_breath_is_answered_in_turn(service: Running) -> None:
    sent = b"GET /own/1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /own/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\ntwo"
    with Answers(service, sent) as answers:
        assert answers.next()[::2] == (200, b"fine")
        assert answers.next()[::2] == (200, b"two")


# --- how much there is of it


@pytest.mark.parametrize("path", ["/own/large", "/jobs", "/livez"])
@pytest.mark.parametrize(
    "fields",
    [
        b"X-Long: " + b"x" * 60_000 + b"\r\n",
        b"X-Long: " + b"x" * 200_000 + b"\r\n",
        b"".join(b"X-%d: 1\r\n" % number for number in range(3000)),
        b"".join(b"X-%d: 1\r\n" % number for number in range(101)),
    ],
    ids=["60 kB", "200 kB", "3,000", "101"],
)
def test_too_much_head_is_refused(service: Running, path: str, fields: bytes) -> None:
    """Fault row 25."""
    sent = b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (path.encode(), fields)
    refused(service, sent, 431, "headers-too-large")
    assert "/own/large" not in service.get("/reached").json()


def test_a_head_within_the_limits_passes_in_whatever_pieces_it_comes(service: Running) -> None:
    fields = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 310) for number in range(98))
    sent = b"GET /own/much?%b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"q" * 8000, fields)
    assert len(sent) > 39_000
    with Answers(service, sent) as answers:
        assert answers.next()[0] == 200
    with Answers(service, sent[:38_000]) as answers:
        service.get("/livez")  # its answer means that the server has read what was sent before
        answers.sends(sent[38_000:])
        assert answers.next()[0] == 200


@pytest.mark.parametrize("target", [b"/own/%b" % (b"x" * 8192), b"/own/x?%b" % (b"x" * 8192)])
def test_too_long_an_address_is_refused(service: Running, target: bytes) -> None:
    sent = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target
    _, document = refused(service, sent, 414, "uri-too-long")
    assert len(json.dumps(document)) < 1000, "what was too long is not said back"


def test_a_websocket_is_under_the_same_rules(service: Running) -> None:
    with Answers(service, HANDSHAKE % (b"", b"")) as answers:
        assert answers.next()[0] == 101
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(200))
    refused(service, HANDSHAKE % (b"", many), 431, "headers-too-large")
    refused(service, HANDSHAKE % (b"?" + b"x" * 8192, b""), 414, "uri-too-long")
    both = b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"
    refused(service, HANDSHAKE % (b"", both), 400, "malformed-request")


def test_the_limits_of_a_head_can_be_set(start: Starter) -> None:
    service = served(
        start, JOBS_MAX_HEADERS="5", JOBS_MAX_HEADER_BYTES="200", JOBS_MAX_URL_BYTES="40"
    )
    head = b"GET /own/x%b HTTP/1.1\r\nHost: a\r\n%b\r\n"
    with Answers(service, head % (b"", b"X-1: 1\r\n" * 4)) as answers:
        assert answers.next()[0] == 200
    refused(service, head % (b"", b"X-1: 1\r\n" * 5), 431, "headers-too-large")
    refused(service, head % (b"", b"X-1: %b\r\n" % (b"x" * 200)), 431, "headers-too-large")
    refused(service, head % (b"x" * 40, b""), 414, "uri-too-long")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused_at_once_and_not_kept(
    service: Running, chunked: bool
) -> None:
    """Fault row 23."""
    size = 15_000_000
    head = b"POST /jobs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    with Answers(service, head) as answers:
        if chunked:
            answers.sends(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size)
            answers.sends(b" " * 1_100_000)
        else:
            answers.sends(b"Content-Length: %d\r\n\r\n" % size)
        answers.problem(413, "too-large")
        before = _peak(service.process.pid)
        for _ in range((size - 1_100_000) // 100_000):
            answers.sends(b" " * 100_000)
        assert service.get("/livez").status == 200
        assert _peak(service.process.pid) - before < 5_000_000


def _peak(pid: int) -> int:
    """The most memory that the process had at one time, in bytes."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize(
    ("status", "slug", "head"),
    [
        (501, "not-implemented", b"MADE-UP /own/x HTTP/1.1\r\nHost: a\r\n"),
        (414, "uri-too-long", b"POST /own/%b HTTP/1.1\r\nHost: a\r\n" % (b"x" * 8192)),
    ],
)
def test_who_sends_a_large_body_with_what_is_refused_can_read_why(
    service: Running, status: int, slug: str, head: bytes
) -> None:
    body = bytes(5_000_000)
    with Answers(service, head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)) as answers:
        answers.problem(status, slug)
        answers.sends(b"GET /own/next HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answers.next()[0] == 200, "the body was read to its end: the connection is good"


# --- who is too slow (fault row 24)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Starter(tmp_path_factory.mktemp("impatient"))
    running = served(made, JOBS_KEEP_ALIVE_TIMEOUT="0.5", JOBS_BODY_TIMEOUT="0.5")
    yield running
    made.close()
    assert "Traceback" not in running.output


def test_who_does_not_send_a_request_is_not_waited_for(impatient: Running) -> None:
    idle = Answers(impatient, b"GET /own/1 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert idle.next()[0] == 200
    with idle, Answers(impatient, b"") as silent, Answers(impatient, b"GET /own/") as half:
        began = time.monotonic()
        for connection in (idle, silent, half):
            connection.ended()
        assert time.monotonic() - began < 5
    assert "/own/" not in impatient.get("/reached").json()


def test_a_head_that_comes_a_byte_at_a_time_has_no_more_time_than_others(
    impatient: Running,
) -> None:
    with Answers(impatient, b"GET /own/ HTTP/1.1\r\nHost: a\r\nX-Slow: ") as answers:
        began = time.monotonic()
        answers.sends_until_answered(b"x")
        answers.ended()
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("length", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_a_body_that_does_not_come_is_not_waited_for(impatient: Running, length: bytes) -> None:
    head = b"POST /jobs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    with Answers(impatient, head + length + b"\r\n\r\n") as answers:
        began = time.monotonic()
        headers, document = answers.problem(408, "body-timeout")
        assert headers["Connection"] == "close"
        assert "body_timeout" in document["detail"]
        answers.ended()
        assert time.monotonic() - began < 4


def test_a_body_that_comes_a_byte_at_a_time_has_no_more_time_than_others(
    impatient: Running,
) -> None:
    head = b"POST /jobs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    with Answers(impatient, head + b"Content-Length: 1000\r\n\r\n") as answers:
        began = time.monotonic()
        answers.sends_until_answered(b" ")
        answers.problem(408, "body-timeout")
        assert time.monotonic() - began < 5


def test_who_waits_for_an_answer_is_not_cut_off(impatient: Running) -> None:
    with Answers(impatient, b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n") as stream:
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            assert stream._socket.recv(65536)


# --- too many at once


def test_over_the_limit_requests_are_turned_away_and_health_is_answered(start: Starter) -> None:
    service = served(start, JOBS_MAX_REQUESTS="3")
    with ExitStack() as held:
        waiting = [
            held.enter_context(Answers(service, b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n"))
            for _ in range(3)
        ]
        until(lambda: service.get("/own/x").status == 503)
        with Answers(service, b"GET /own/x HTTP/1.1\r\nHost: a\r\n\r\n") as turned_away:
            headers, _ = turned_away.problem(503, "overloaded")
            assert headers["Retry-After"] == "1"
        assert service.get("/livez").status == service.get("/readyz").status == 200
        waiting[0].__exit__()
        until(lambda: service.get("/own/x").status == 200)


def test_streams_are_not_requests_under_way(start: Starter) -> None:
    service = served(start, JOBS_MAX_REQUESTS="2")
    with ExitStack() as held:
        for sent, status in [
            (b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            (HANDSHAKE % (b"", b""), 101),
        ] * 3:
            stream = held.enter_context(Answers(service, sent))
            assert stream.next()[0] == status
        assert service.get("/own/x").status == 200


# --- too many in a row


def test_who_asks_too_often_is_told_when_to_come_back(start: Starter) -> None:
    service = served(start, JOBS_RATE_LIMIT="20/m", JOBS_RATE_BURST="3")
    began = time.monotonic()
    left = []
    while (answer := service.get("/own/x")).status == 200:
        assert answer.headers["RateLimit-Policy"] == '"default";q=3;w=9'
        left.append(int(answer.headers["RateLimit"].removeprefix('"default";r=').partition(";")[0]))
    assert left[:3] == [2, 1, 0]
    assert len(left) <= 3 + (time.monotonic() - began) / 3
    assert answer.status == 429
    assert answer.json()["type"] == "/problems/rate-limited"
    assert answer.headers["Retry-After"] in ("1", "2", "3")
    assert re.fullmatch(r'"default";r=0;t=[789]', answer.headers["RateLimit"])
    assert service.get("/livez").status == service.get("/readyz").status == 200
    # Who says that it is someone else is not.
    forwarded = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    assert service.ask("GET", "/own/x", headers=forwarded).status == 429
    with Answers(service, HANDSHAKE % (b"", b"")) as answers:
        answers.problem(429, "rate-limited")
    time.sleep(int(answer.headers["Retry-After"]))
    assert service.get("/own/x").status == 200


def test_each_client_has_a_rate_of_its_own(start: Starter) -> None:
    service = served(start, JOBS_RATE_LIMIT="1/h")
    assert service.get("/own/x").status == 200
    assert service.get("/own/x").status == 429
    with socket.create_connection(
        ("127.0.0.1", service.port), timeout=PATIENCE, source_address=("127.0.0.2", 0)
    ) as other:
        other.sendall(b"GET /own/x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert other.recv(12) == b"HTTP/1.1 200"


def test_who_has_a_key_is_not_held_up_by_who_has_none_at_the_same_address(start: Starter) -> None:
    database = str(start.folder / "jobs.db")
    (ann, good), (bob, other) = (new_key(name) for name in ("ann", "bob"))
    for key in (ann, bob):
        asyncio.run(key_commands.add(Settings(database=database), key))
    service = served(start, JOBS_DATABASE=database, JOBS_RATE_LIMIT="4/h")

    def statuses(text: str, times: int) -> list[int]:
        headers = {"Authorization": f"Bearer {text}"}
        return [service.ask("GET", "/jobs", headers=headers).status for _ in range(times)]

    wrong = good[:-5] + ("AAAAA" if good[-5:] != "AAAAA" else "BBBBB")
    assert statuses(good, 1) == [200]
    assert statuses(wrong, 6) == [401] * 4 + [429] * 2
    assert statuses(good, 5) == [200] * 3 + [429] * 2
    assert statuses(other, 5) == [200] * 4 + [429]
    assert statuses(good, 5) == [429] * 5
    with closing(
        http.client.HTTPConnection(
            "127.0.0.1", service.port, timeout=PATIENCE, source_address=("127.0.0.2", 0)
        )
    ) as elsewhere:
        elsewhere.request("GET", "/jobs", headers={"Authorization": f"Bearer {good}"})
        assert elsewhere.getresponse().status == 429
        elsewhere.close()
        elsewhere.request("GET", "/reached")
        asked = json.loads(elsewhere.getresponse().read())
    assert asked.count("/jobs") == 1 + 4 + 3 + 4, "what was refused was not for the app to see"
