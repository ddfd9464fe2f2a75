"""A snapshot restored is the request it was taken of, in everything but the body."""

import asyncio
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quart import (
    Blueprint,
    Quart,
    after_this_request,
    current_app,
    g,
    has_request_context,
    request,
    session,
    url_for,
)

from jobs.errors import BadContext, BodyNotCarried
from jobs.frameworks.quart import restored, take
from jobs.snapshot import Carrier, RequestSnapshot


def make_app() -> Quart:
    app = Quart(__name__)
    app.secret_key = "s"
    shop = Blueprint("shop", __name__, url_prefix="/shop")

    @shop.route("/<item>/<int:count>", methods=["GET", "POST"])
    async def buy(item: str, count: int) -> str:
        return ""

    @app.get("/confirm/<token>")
    async def confirm(token: str) -> str:
        return ""

    @app.get("/login")
    async def login() -> str:
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
        "scheme": request.scheme,
        "host": request.host,
        "url": request.url,
        "base_url": request.base_url,
        "root_url": request.root_url,
        "query_string": request.query_string,
        "args": list(request.args.items(multi=True)),
        "headers": list(request.headers),
        "cookies": list(request.cookies.items(multi=True)),
        "remote_addr": request.remote_addr,
        "http_version": request.http_version,
        "view_args": request.view_args,
        "endpoint": request.endpoint,
        "blueprint": request.blueprint,
        "rule": str(request.url_rule),
        "content_type": request.content_type,
        "session": dict(session),
    }


async def serve(
    app: Quart, body: bytes = b"", **scope: Any
) -> tuple[RequestSnapshot, dict[str, Any]]:
    """Send one request through `app` as a server does; what was taken, and what was seen."""
    caught = asyncio.get_running_loop().create_future()

    @app.before_request
    async def catch() -> str:
        caught.set_result((take(request, {}), seen()))  # type: ignore[arg-type]
        return ""

    received = asyncio.Queue[Any]()
    received.put_nowait({"type": "http.request", "body": body, "more_body": False})

    async def send(_: Any) -> None:
        pass

    whole = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"shop.example")],
        "client": ("192.0.2.7", 4711),
        "server": ("127.0.0.1", 8000),
        "state": {},
        "extensions": {},
        **scope,
    }
    try:
        handling = asyncio.create_task(app(whole, received.get, send))  # type: ignore[arg-type]
        await asyncio.wait({handling, caught}, return_when=asyncio.FIRST_COMPLETED)
        received.put_nowait({"type": "http.disconnect"})
        await handling
    finally:
        app.before_request_funcs[None].remove(catch)
    return caught.result()


def sent(*headers: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


letters = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=8)
token = st.text("abcxyz-!#*", min_size=1, max_size=8)
latin = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=8).map(str.strip)
pairs = st.lists(st.tuples(st.sampled_from(["a", "b", "ä"]), letters), max_size=5)


@settings(max_examples=80)
@given(
    method=token.map(str.upper),
    path=st.lists(letters, max_size=3).map("/".join),
    root_path=st.sampled_from(["", "/prefix", "/ä/b"]),
    query=pairs,
    headers=st.lists(st.tuples(st.one_of(token, st.just("remote-addr")), latin), max_size=6),
    scheme=st.sampled_from(["http", "https"]),
    host=st.sampled_from(["h", "h:8443", "h:80", "h:443", "[::1]:5000", ""]),
    client=st.sampled_from([None, ("192.0.2.7", 1), ("::1", 2)]),
    http_version=st.sampled_from(["1.0", "1.1", "2"]),
)
def test_restoring_what_was_taken_gives_the_request_again(
    method: str,
    path: str,
    root_path: str,
    query: list[tuple[str, str]],
    headers: list[tuple[str, str]],
    scheme: str,
    host: str,
    client: Any,
    http_version: str,
) -> None:
    async def go() -> None:
        app = make_app()
        snapshot, before = await serve(
            app,
            method=method,
            path=f"{root_path}/{path}",
            root_path=root_path,
            scheme=scheme,
            client=client,
            http_version=http_version,
            query_string="&".join(f"{quote(k)}={quote(v)}" for k, v in query).encode(),
            headers=sent(*headers, *([("host", host)] if host else [])),
        )
        stored = RequestSnapshot.model_validate_json(snapshot.model_dump_json())
        async with restored(app, stored, {}):
            after = seen()
            again = take(request, {})  # type: ignore[arg-type]
        forged = {"headers": [p for p in before["headers"][1:] if p[0] != "Remote-Addr"]}
        assert after == before | {"headers": before["headers"][:1] + forged["headers"]}
        assert again == snapshot == stored

    asyncio.run(go())


async def test_a_route_below_a_proxy_prefix_and_https() -> None:
    app = make_app()
    snapshot, before = await serve(
        app,
        method="POST",
        path="/prefix/shop/café/3",
        root_path="/prefix",
        scheme="https",
        query_string=b"a=1&b=2&a=3",
        headers=sent(("host", "shop.example"), ("x-tag", "1"), ("x-tag", "2"), ("cookie", "c=d")),
    )
    async with restored(app, snapshot, {}):
        assert seen() == before
        assert (request.endpoint, request.blueprint) == ("shop.buy", "shop")
        assert request.view_args == {"item": "café", "count": 3}
        assert request.args.getlist("a") == ["1", "3"]
        assert request.headers.getlist("X-Tag") == ["1", "2"]
        assert request.cookies["c"] == "d"
        assert request.remote_addr == "192.0.2.7"
        assert current_app.name == app.name
        assert url_for("confirm", token="t", _external=True) == (
            "https://shop.example/prefix/confirm/t"
        )


async def test_a_client_sent_remote_addr_never_wins() -> None:
    app = make_app()
    snapshot, before = await serve(app, headers=sent(("remote-addr", "6.6.6.6")))
    assert before["remote_addr"] == "192.0.2.7"
    async with restored(app, snapshot, {}):
        assert request.remote_addr == "192.0.2.7"
        assert request.headers.getlist("Remote-Addr") == ["192.0.2.7"]


async def test_the_session_can_be_read() -> None:
    app = make_app()
    cookie = (await app.test_client().get("/login")).headers["Set-Cookie"].split(";")[0]
    snapshot, _ = await serve(app, headers=sent(("cookie", cookie)))
    async with restored(app, snapshot, {}):
        assert session["user"] == "Ann"


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-www-form-urlencoded", "text/plain"]
)
async def test_reading_the_body_is_refused(kind: str) -> None:
    app = make_app()
    headers = sent(("content-type", kind), ("content-length", "2"))
    snapshot, _ = await serve(app, b"{}", method="POST", headers=headers)
    async with restored(app, snapshot, {}):
        for read in (
            lambda: request.get_data(),
            lambda: request.get_json(),
            lambda: request.form,
            lambda: request.files,
            lambda: request.values,
            lambda: request.json,
            lambda: request.data,
            lambda: request.body,
            lambda: anext(aiter(request.body)),
        ):
            with pytest.raises(BodyNotCarried, match="pass what the task needs of it"):
                await asyncio.wait_for(read(), 5)


async def test_an_apps_own_request_class_is_kept() -> None:
    class Mine(Quart.request_class):  # type: ignore[name-defined,misc]
        @property
        def tenant(self) -> str:
            return self.host.split(".")[0]

    app = make_app()
    app.request_class = Mine
    snapshot, _ = await serve(app)
    async with restored(app, snapshot, {}):
        assert isinstance(request._get_current_object(), Mine)
        assert request.tenant == "shop"  # type: ignore[attr-defined]


async def test_carried_values_are_on_g_and_loads_are_applied() -> None:
    app = make_app()
    snapshot, _ = await serve(app)
    snapshot = snapshot.model_copy(update={"globals": {"user": 7, "name": "Ann", "late": 1}})

    async def late(value: int) -> str:
        return f"late {value}"

    carriers = {
        "user": Carrier(save=lambda user: user.id, load=lambda key: SimpleNamespace(id=key)),
        "late": Carrier(save=str, load=late),
    }
    async with restored(app, snapshot, carriers):
        assert (g.user.id, g.name, g.late) == (7, "Ann", "late 1")


async def test_a_failing_load_names_the_key_and_leaves_no_context() -> None:
    app = make_app()
    snapshot, _ = await serve(app)
    snapshot = snapshot.model_copy(update={"globals": {"user": 7}})
    carriers = {"user": Carrier(save=str, load=lambda key: {}[key])}
    with pytest.raises(BadContext, match=r"g\.user.*KeyError\(7\)"):
        async with restored(app, snapshot, carriers):
            pass
    assert not has_request_context()


async def test_g_is_not_shared_with_a_context_that_is_already_there() -> None:
    app = make_app()
    snapshot, _ = await serve(app)
    snapshot = snapshot.model_copy(update={"globals": {"user": "job's"}})
    async with app.app_context():
        g.user = "caller's"
        async with restored(app, snapshot, {}):
            assert g.user == "job's"
        assert g.user == "caller's"


async def test_before_request_does_not_run_and_teardown_does() -> None:
    app = make_app()
    snapshot, _ = await serve(app)
    ran: list[Any] = []
    app.before_request(lambda: ran.append("before"))
    app.teardown_request(lambda error: ran.append(("request", error)))
    app.teardown_appcontext(lambda error: ran.append(("app", error)))
    async with restored(app, snapshot, {}):
        pass
    assert ran == [("request", None), ("app", None)]
    ran.clear()
    failure = RuntimeError("task")
    with pytest.raises(RuntimeError, match="task"):
        async with restored(app, snapshot, {}):
            raise failure
    assert ran == [("request", failure), ("app", failure)]


async def test_after_request_functions_run_when_asked_and_change_nothing() -> None:
    app = make_app()
    snapshot, _ = await serve(app, path="/shop/tea/1")
    ran: list[str] = []

    @app.after_request
    async def for_all(response: Any) -> Any:
        ran.append(f"all {(await response.get_data()).decode()}")
        return response

    async def for_shop(response: Any) -> Any:
        ran.append("shop")
        response.set_data("changed")
        return response

    app.after_request_funcs["shop"].append(for_shop)  # type: ignore[index]
    async with restored(app, snapshot, {}) as context:
        context.result = "r"
    assert ran == []
    async with restored(app, snapshot, {}, after_request=True) as context:

        @after_this_request
        def once(response: Any) -> Any:
            ran.append("once")
            return response

        session["seen"] = True
        context.result = "r"
    assert ran == ["once", "shop", "all changed"]
    assert context.result == "r"


@pytest.mark.parametrize("result", [None, 5, {"a": 1}, [], object()])
async def test_after_request_takes_any_result(result: Any) -> None:
    app = make_app()
    snapshot, _ = await serve(app)
    ran: list[Any] = []

    @app.after_request
    async def note(response: Any) -> Any:
        ran.append(response)
        return response

    async with restored(app, snapshot, {}, after_request=True) as context:
        context.result = result
    assert len(ran) == 1
    with pytest.raises(ZeroDivisionError):
        async with restored(app, snapshot, {}, after_request=True):
            1 / 0  # noqa: B018
    assert len(ran) == 1


async def test_without_a_snapshot_there_is_an_app_context_only() -> None:
    app = make_app()
    async with restored(app, None, {}, after_request=True) as context:
        context.result = "r"
        assert current_app.name == app.name
        assert not has_request_context()


async def test_a_snapshot_of_another_version_is_refused() -> None:
    snapshot, _ = await serve(make_app())
    other = snapshot.model_dump(mode="json") | {"version": 2}
    with pytest.raises(ValueError, match="version"):
        RequestSnapshot.model_validate(other)
