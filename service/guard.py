"""What no app should see: malformed requests, methods and heads beyond measure, a client's flood."""

from collections.abc import Callable, Hashable
from ipaddress import IPv6Address

from jobs.settings import Settings

from .api.charge import Charge, Rates, at_hand
from .api.problems import (
    HEADERS_TOO_LARGE,
    MALFORMED_REQUEST,
    METHOD,
    NOT_IMPLEMENTED,
    URI_TOO_LONG,
    Refusal,
)
from .asgi import App, Message, Receive, Send, refuse

METHODS = frozenset({"GET", "HEAD", "QUERY", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Those of RFC 9110 that an app answers, PATCH (RFC 5789), and QUERY: a GET with a body."""

_LENGTH, _CODING = 1, 2
_FRAMING = {b"content-length": _LENGTH, b"transfer-encoding": _CODING}


def is_health(scope: Message) -> bool:
    """Whether this is to be answered whatever the load."""
    return (
        scope["path"] in ("/livez", "/readyz")
        and scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
    )


def client_address(scope: Message) -> str:
    """The address that a request came from: of IPv6 the first 64 bits, which are one customer's.

    What the request itself says of that, as in X-Forwarded-For, anyone can make up."""
    host: str = (scope.get("client") or ("",))[0]
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host)
    except ValueError:
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))


def _unknown(_: Message) -> None:
    """Nobody is known by the head of a request alone."""


class Guard:
    """An ASGI app that refuses what `app` should not see, and passes everything else on.

    `quart-jobs serve` puts it around every app. Under another server: `app.asgi_app =
    Guard(app.asgi_app)`.

    Args:
        settings: default: those of the environment.
        client: whom a request's rate is counted for while nobody knows who sent it.
        caller: who sent a request, as far as its head tells; the job API tells of the others.
    """

    def __init__(
        self,
        app: App,
        settings: Settings | None = None,
        *,
        client: Callable[[Message], str] = client_address,
        caller: Callable[[Message], Hashable | None] = _unknown,
    ) -> None:
        self._app = app
        settings = settings or Settings.load()
        self._settings = settings
        self._client, self._caller = client, caller
        self._rates = Rates(settings) if settings.rate_limit else None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None and self._rates is not None and not is_health(scope):
            charge = Charge(self._rates, self._caller(scope), self._client(scope))
            at_hand.set(charge)
            send = _with_fields(send, charge)
            refusal = charge.refusal
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            path = "" if refusal.kind is URI_TOO_LONG else scope["path"]
            await refuse(scope, receive, send, refusal, path)

    def _refusal(self, scope: Message) -> Refusal | None:
        """On the way of every request: it takes a microsecond or two."""
        settings, headers = self._settings, scope["headers"]
        size = framing = 0
        for name, value in headers:
            size += len(name) + len(value)
            if name in _FRAMING:
                framing |= _FRAMING[name]
        if framing == _LENGTH | _CODING:
            return _ambiguous("it has both Content-Length and Transfer-Encoding")
        if framing == _CODING and scope["http_version"] == "1.0":
            return _ambiguous("HTTP/1.0 has no Transfer-Encoding")
        if scope["type"] == "http" and scope["method"] not in METHODS:
            return _other_method(scope["method"])
        url_size = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
        if url_size > settings.max_url_bytes:
            return Refusal(
                URI_TOO_LONG,
                f"path and query may have {settings.max_url_bytes} bytes together"
                f" (setting: max_url_bytes), not {url_size}",
            )
        if len(headers) > settings.max_headers:
            return Refusal(
                HEADERS_TOO_LARGE,
                f"a request may have {settings.max_headers} header fields"
                f" (setting: max_headers), not {len(headers)}",
            )
        if size > settings.max_header_bytes:
            return Refusal(
                HEADERS_TOO_LARGE,
                f"header fields may have {settings.max_header_bytes} bytes together"
                f" (setting: max_header_bytes), not {size}",
            )
        return None


def _ambiguous(why: str) -> Refusal:
    return Refusal(
        MALFORMED_REQUEST,
        f"where the request ends is open to dispute: {why} (RFC 9112, 6.1)",
        headers={"Connection": "close"},
    )


def _other_method(method: str) -> Refusal:
    if method == "TRACE":  # known to all, and of no good to anyone (RFC 9110, 9.3.8)
        allowed = ", ".join(sorted(METHODS))
        return Refusal(
            METHOD, f"no address takes TRACE, only {allowed}", headers={"Allow": allowed}
        )
    return Refusal(
        NOT_IMPLEMENTED, f"no address takes {method[:40]}, only {', '.join(sorted(METHODS))}"
    )


def _with_fields(send: Send, charge: Charge) -> Send:
    async def sending(message: Message) -> None:
        if message["type"].endswith("http.response.start"):
            message = {**message, "headers": [*message.get("headers", ()), *charge.fields]}
        await send(message)

    return sending
