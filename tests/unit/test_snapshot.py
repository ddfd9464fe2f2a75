"""What of a request travels, and what of `g`."""

import dataclasses
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from quart import Quart, g, request

from jobs.errors import NotCarriable
from jobs.frameworks.quart import take
from jobs.keys import new_key
from jobs.snapshot import Carrier, RequestSnapshot, carried, origin

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class User(BaseModel):
    name: str
    since: datetime


@dataclasses.dataclass
class Team:
    name: str
    users: list[User]


async def taken(path: str = "/", **how: Any) -> tuple[RequestSnapshot, dict[str, Any]]:
    app = Quart(__name__)

    @app.get("/orders/<int:number>")
    async def order(number: int) -> str:
        return ""

    async with app.test_request_context(path, **how):
        snapshot = take(request, {})  # type: ignore[arg-type]
        return snapshot, json.loads(origin(snapshot, request))  # type: ignore[arg-type]


async def on_g(names: set[str], carriers: dict[str, Carrier] | None = None, **values: Any) -> Any:
    async with Quart(__name__).app_context():
        for name, value in values.items():
            setattr(g, name, value)
        return carried(g, names, carriers or {})


async def test_a_snapshot_is_frozen_and_closed() -> None:
    snapshot, _ = await taken()
    with pytest.raises(ValidationError, match="frozen"):
        snapshot.method = "PUT"
    with pytest.raises(ValidationError, match="extra"):
        RequestSnapshot.model_validate(snapshot.model_dump() | {"body": ""})


async def test_the_origin_is_method_route_and_trace() -> None:
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "authorization": "canary"}
    _, described = await taken("/orders/7?token=canary", headers=headers)
    assert described == {"method": "GET", "route": "/orders/<int:number>", "trace_id": TRACE}
    _, described = await taken("/nowhere/canary", method="POST")
    assert described == {"method": "POST", "route": None, "trace_id": None}


@pytest.mark.parametrize(
    "header",
    ["", "junk", f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{TRACE[1:]}-00f067aa0ba902b7-01"],
)
async def test_a_malformed_traceparent_is_no_trace(header: str) -> None:
    snapshot, _ = await taken(headers={"traceparent": header})
    assert snapshot.trace_id is None


async def test_trace_context_stays_in_the_headers() -> None:
    sent = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "tracestate": "a=1", "baggage": "b=2"}
    snapshot, _ = await taken(headers=sent)
    kept = {name.lower(): value for name, value in snapshot.headers}
    assert {name: kept[name] for name in sent} == sent


async def test_values_of_g_travel_as_json() -> None:
    user = User(name="Ann", since=datetime(2024, 1, 2, tzinfo=UTC))
    dumped = {"name": "Ann", "since": "2024-01-02T00:00:00Z"}
    assert await on_g(
        {"a", "b", "c", "d", "gone"}, a=1, b={"x": [None, (1,)]}, c=user, d=Team("t", [user])
    ) == {
        "a": 1,
        "b": {"x": [None, [1]]},
        "c": dumped,
        "d": {"name": "t", "users": [dumped]},
    }


async def test_only_the_names_asked_for_travel() -> None:
    assert await on_g({"a"}, a=1, secret="s") == {"a": 1}


async def test_a_carriers_save_makes_it_json() -> None:
    carriers = {"user": Carrier(save=lambda user: user.id, load=lambda key: key)}
    assert await on_g({"user"}, carriers, user=SimpleNamespace(id=7)) == {"user": 7}


@pytest.mark.parametrize(
    "value", [object(), datetime(2024, 1, 1, tzinfo=UTC), {1: 2}, {"a": {1, 2}}, b"x", User]
)
async def test_anything_else_is_refused_naming_key_type_and_ways_out(value: Any) -> None:
    with pytest.raises(
        NotCarriable, match=r"g\.user \(\w+\).*such as its id.* jobs\.carrier\('user'"
    ):
        await on_g({"user"}, user=value)


@pytest.mark.parametrize("value", [float("nan"), "a\0", ["\ud800"], Team("a\0", [])])
async def test_what_json_cannot_hold_is_refused_naming_the_key(value: Any) -> None:
    with pytest.raises(NotCarriable, match=r"g\.user .*/user"):
        await on_g({"user"}, user=value)


async def test_what_contains_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(NotCarriable, match=r"g\.user"):
        await on_g({"user"}, user=circle)


async def test_a_carrier_that_fails_is_named() -> None:
    async def late(user: Any) -> int:
        return 1

    for save, why in (
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (late, "async"),
        (lambda _: object(), "save"),
    ):
        with pytest.raises(NotCarriable, match=rf"g\.user.*{why}"):
            await on_g({"user"}, {"user": Carrier(save=save, load=str)}, user=1)


@pytest.mark.parametrize("spelling", ["Bearer {}", "bearer  {}", "{}"])
async def test_an_api_key_does_not_travel(spelling: str) -> None:
    key = spelling.format(new_key("ci")[1])
    for text, travels in ((key, False), ("Bearer of.another.kind", True)):
        async with Quart("app").test_request_context("/", headers={"Authorization": text}):
            names = [name.lower() for name, _ in take(request, {}).headers]
            assert ("authorization" in names) is travels
