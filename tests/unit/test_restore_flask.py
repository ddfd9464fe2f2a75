"""A snapshot restored in Flask is the request it was taken of, in everything but the body."""

import io
import sys
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from flask import (
    Blueprint,
    Flask,
    after_this_request,
    current_app,
    g,
    has_app_context,
    has_request_context,
    request,
    session,
    url_for,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import BadContext, BodyNotCarried
from jobs.frameworks.flask import restored, take
from jobs.snapshot import Carrier, RequestSnapshot


def make_app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "s"
    shop = Blueprint("shop", __name__, url_prefix="/shop")

    @shop.route("/<item>/<int:count>", methods=["GET", "POST"])
    def buy(item: str, count: int) -> str:
        return ""

    @app.get("/confirm/<token>")
    def confirm(token: str) -> str:
        return ""

    @app.get("/login")
    def login() -> str:
        session["user"] = "Ann"
        return ""

    app.register_blueprint(shop)
    return app


def seen() -> dict[str, Any]:
    """What a task can see of the current request."""
    return {
        "method": request.method,
        "path": request.path,
        "full_path": request.full_path,
        "root_path": request.root_path,
        "script_root": request.script_root,
        "scheme": request.scheme,
        "is_secure": request.is_secure,
        "host": request.host,
        "url": request.url,
        "base_url": request.base_url,
        "root_url": request.root_url,
        "query_string": request.query_string,
        "args": list(request.args.items(multi=True)),
        "headers": list(request.headers),
        "cookies": list(request.cookies.items(multi=True)),
        "remote_addr": request.remote_addr,
        "protocol": request.environ.get("SERVER_PROTOCOL"),
        "view_args": request.view_args,
        "endpoint": request.endpoint,
        "blueprint": request.blueprint,
        "rule": str(request.url_rule),
        "content_type": request.content_type,
        "content_length": request.content_length,
        "session": dict(session),
    }


def wsgi(text: str) -> str:
    return text.encode().decode("latin-1")


def serve(app: Flask, body: bytes = b"", **changes: Any) -> tuple[RequestSnapshot, dict[str, Any]]:
    """Send one request through `app` as a server does; what was taken, and what was seen."""
    caught = []

    def catch() -> str:
        caught.append((take(request, {}), seen()))  # type: ignore[arg-type]
        return ""

    app.before_request_funcs.setdefault(None, []).append(catch)
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.7",
        "HTTP_HOST": "shop.example",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **changes,
    }
    environ = {key: value for key, value in environ.items() if value is not None}
    try:
        b"".join(app(environ, lambda *_: None))  # type: ignore[arg-type,return-value]
    finally:
        app.before_request_funcs[None].remove(catch)
    (both,) = caught
    return both


letters = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=8)
token = st.text("abcxyz-!#*", min_size=1, max_size=8)
latin = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=8).map(str.strip)
pairs = st.lists(st.tuples(st.sampled_from(["a", "b", "ä"]), letters), max_size=5)
special = st.sampled_from(["content-type", "content-length", "cookie", "remote-addr"])


@settings(max_examples=80)
@given(
    method=token.map(str.upper),
    path=st.lists(letters, max_size=3).map("/".join),
    root_path=st.sampled_from(["", "/prefix", "/ä/b"]),
    query=pairs,
    headers=st.dictionaries(st.one_of(token, special), latin, max_size=6),
    scheme=st.sampled_from(["http", "https"]),
    host=st.sampled_from(["h", "h:8443", "h:80", "h:443", "[::1]:5000", None]),
    server=st.sampled_from([("127.0.0.1", "8000"), ("::1", "80"), ("h", "443"), ("/run/s", "")]),
    client=st.sampled_from([None, "192.0.2.7", "::1"]),
    http_version=st.sampled_from(["1.0", "1.1", "2"]),
)
def test_restoring_what_was_taken_gives_the_request_again(
    method: str,
    path: str,
    root_path: str,
    query: list[tuple[str, str]],
    headers: dict[str, str],
    scheme: str,
    host: str | None,
    server: tuple[str, str],
    client: str | None,
    http_version: str,
) -> None:
    app = make_app()
    keys = {name: name.upper().replace("-", "_") for name in headers}
    snapshot, before = serve(
        app,
        REQUEST_METHOD=method,
        SCRIPT_NAME=wsgi(root_path),
        PATH_INFO=wsgi(f"/{path}"),
        QUERY_STRING="&".join(f"{quote(k)}={quote(v)}" for k, v in query),
        SERVER_NAME=server[0],
        SERVER_PORT=server[1],
        SERVER_PROTOCOL=f"HTTP/{http_version}",
        REMOTE_ADDR=client,
        HTTP_HOST=host,
        **{"wsgi.url_scheme": scheme},
        **{
            key if key.startswith("CONTENT_") else f"HTTP_{key}": headers[name]
            for name, key in keys.items()
            if headers[name] or not key.startswith("CONTENT_")  # empty is none, says PEP 3333
        },
    )
    stored = RequestSnapshot.read(snapshot.model_dump_json().encode())
    with restored(app, stored, {}):
        assert seen() == before
        assert take(request, {}) == snapshot == stored  # type: ignore[arg-type]


def test_a_route_below_a_prefix_and_https() -> None:
    app = make_app()
    snapshot, before = serve(
        app,
        REQUEST_METHOD="POST",
        SCRIPT_NAME="/prefix",
        PATH_INFO=wsgi("/shop/café/3"),
        QUERY_STRING="a=1&b=2&a=3",
        HTTP_X_TAG="1,2",
        HTTP_COOKIE="c=d; e=f",
        **{"wsgi.url_scheme": "https"},
    )
    with restored(app, snapshot, {}):
        assert seen() == before
        assert (request.endpoint, request.blueprint) == ("shop.buy", "shop")
        assert request.view_args == {"item": "café", "count": 3}
        assert request.args.getlist("a") == ["1", "3"]
        assert request.headers["X-Tag"] == "1,2"
        assert request.environ["HTTP_X_TAG"] == "1,2"
        assert dict(request.cookies) == {"c": "d", "e": "f"}
        assert request.remote_addr == "192.0.2.7"
        assert current_app.name == app.name
        assert url_for("confirm", token="t", _external=True) == (
            "https://shop.example/prefix/confirm/t"
        )


def test_headers_that_repeat_in_a_snapshot_repeat_in_the_request() -> None:
    app = make_app()
    snapshot, _ = serve(app)
    headers = (
        *snapshot.headers,
        ("X-Tag", "1"),
        ("X-Tag", "2"),
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
    )
    with restored(app, snapshot.model_copy(update={"headers": headers}), {}):
        assert request.headers.getlist("X-Tag") == ["1", "2"]
        assert dict(request.cookies) == {"a": "1", "b": "2"}
        assert request.environ["HTTP_X_TAG"] == "1,2"
        assert request.environ["HTTP_COOKIE"] == "a=1; b=2"


def test_the_session_can_be_read() -> None:
    app = make_app()
    cookie = app.test_client().get("/login").headers["Set-Cookie"].split(";")[0]
    snapshot, _ = serve(app, HTTP_COOKIE=cookie)
    with restored(app, snapshot, {}):
        assert session["user"] == "Ann"


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-www-form-urlencoded", "text/plain"]
)
@pytest.mark.parametrize("length", [None, "2"])
def test_reading_the_body_is_refused(kind: str, length: str | None) -> None:
    app = make_app()
    snapshot, _ = serve(app, b"{}", REQUEST_METHOD="POST", CONTENT_TYPE=kind, CONTENT_LENGTH=length)
    with restored(app, snapshot, {}):
        for read in (
            lambda: request.get_data(),
            lambda: request.get_json(),
            lambda: request.form,
            lambda: request.files,
            lambda: request.values,
            lambda: request.json,
            lambda: request.data,
            lambda: request.stream.read(),
            lambda: request.input_stream.readline(),
            lambda: next(iter(request.input_stream)),
        ):
            with pytest.raises(BodyNotCarried, match="pass what the task needs of it"):
                read()


def test_an_apps_own_request_class_is_kept() -> None:
    class Mine(Flask.request_class):  # type: ignore[name-defined,misc]
        @property
        def tenant(self) -> str:
            return self.host.split(".")[0]

    app = make_app()
    app.request_class = Mine
    snapshot, _ = serve(app)
    with restored(app, snapshot, {}):
        assert type(request._get_current_object()) is Mine  # type: ignore[attr-defined]
        assert request.tenant == "shop"  # type: ignore[attr-defined]


def test_carried_values_are_on_g_and_loads_are_applied() -> None:
    app = make_app()
    snapshot, _ = serve(app)
    snapshot = snapshot.model_copy(update={"globals": {"user": 7, "name": "Ann"}})
    carriers = {
        "user": Carrier(save=lambda user: user.id, load=lambda key: SimpleNamespace(id=key))
    }
    with restored(app, snapshot, carriers):
        assert (g.user.id, g.name) == (7, "Ann")


async def _late(value: int) -> int:
    return value


@pytest.mark.parametrize(
    ("load", "why"), [({}.__getitem__, r"KeyError\(7\)"), (_late, "load is async")]
)
def test_a_load_that_fails_names_the_key_and_leaves_no_context(load: Any, why: str) -> None:
    app = make_app()
    ran: list[Any] = []
    app.teardown_request(ran.append)
    snapshot, _ = serve(app)
    snapshot = snapshot.model_copy(update={"globals": {"user": 7}})
    ran.clear()
    with (
        pytest.raises(BadContext, match=rf"g\.user.*{why}"),
        restored(app, snapshot, {"user": Carrier(save=str, load=load)}),
    ):
        pass
    assert not has_request_context()
    assert not has_app_context()
    assert [type(error) for error in ran] == [BadContext]


def test_g_is_not_shared_with_a_context_that_is_already_there() -> None:
    app = make_app()
    snapshot, _ = serve(app)
    snapshot = snapshot.model_copy(update={"globals": {"user": "job's"}})
    with app.test_request_context("/other"):
        g.user = "caller's"
        with restored(app, snapshot, {}):
            assert (g.user, request.path) == ("job's", "/")
        assert (g.user, request.path) == ("caller's", "/other")


def test_before_request_does_not_run_and_teardown_does() -> None:
    app = make_app()
    ran: list[Any] = []
    app.before_request(lambda: ran.append("before"))
    app.teardown_request(lambda error: ran.append(("request", error)))
    app.teardown_appcontext(lambda error: ran.append(("app", error)))
    snapshot, _ = serve(app)
    ran.clear()
    with restored(app, snapshot, {}):
        pass
    assert ran == [("request", None), ("app", None)]
    ran.clear()
    failure = RuntimeError("task")
    with pytest.raises(RuntimeError, match="task"), restored(app, snapshot, {}):
        raise failure
    assert ran == [("request", failure), ("app", failure)]


def test_a_teardown_that_raises_leaves_no_context() -> None:
    app = make_app()
    failing = False

    @app.teardown_request
    def fail(_error: BaseException | None) -> None:
        if failing:
            raise LookupError("teardown")

    snapshot, _ = serve(app)
    failing = True
    with pytest.raises(Exception, match="teardown"), restored(app, snapshot, {}):
        pass
    assert not has_request_context()
    assert not has_app_context()


def test_after_request_functions_run_when_asked_and_change_nothing() -> None:
    app = make_app()
    ran: list[str] = []

    @app.after_request
    def for_all(response: Any) -> Any:
        ran.append(f"all {response.get_data(as_text=True)}")
        return response

    def for_shop(response: Any) -> Any:
        ran.append("shop")
        response.set_data("changed")
        return response

    app.after_request_funcs["shop"].append(for_shop)
    snapshot, _ = serve(app, PATH_INFO="/shop/tea/1")
    ran.clear()
    with restored(app, snapshot, {}) as context:
        context.result = "r"
    assert ran == []
    with restored(app, snapshot, {}, after_request=True) as context:

        @after_this_request
        def once(response: Any) -> Any:
            ran.append("once")
            return response

        session["seen"] = True
        context.result = "r"
    assert ran == ["once", "shop", "all changed"]
    assert context.result == "r"


@pytest.mark.parametrize("result", [None, 5, {"a": 1}, [], object()])
def test_after_request_takes_any_result(result: Any) -> None:
    app = make_app()
    ran: list[Any] = []

    @app.after_request
    def note(response: Any) -> Any:
        ran.append(response)
        return response

    snapshot, _ = serve(app)
    ran.clear()
    with restored(app, snapshot, {}, after_request=True) as context:
        context.result = result
    assert len(ran) == 1
    with pytest.raises(ZeroDivisionError), restored(app, snapshot, {}, after_request=True):
        1 / 0  # noqa: B018
    assert len(ran) == 1


async def test_it_can_be_entered_by_async_code() -> None:
    app = make_app()
    snapshot, before = serve(app)
    async with restored(app, snapshot, {}):
        assert seen() == before
    assert not has_request_context()


def test_without_a_snapshot_there_is_an_app_context_only() -> None:
    app = make_app()
    with restored(app, None, {}, after_request=True) as context:
        context.result = "r"
        assert current_app.name == app.name
        assert not has_request_context()
