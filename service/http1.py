"""Hypercorn's HTTP/1.1 without what an app behind it could not see and would not want."""

import h11
from hypercorn.events import Closed
from hypercorn.protocol.h11 import H11Protocol

from .api.problems import (
    HEADERS_TOO_LARGE,
    HTTP_VERSION,
    MALFORMED_REQUEST,
    NOT_IMPLEMENTED,
    ProblemType,
    Refusal,
)
from .asgi import problem

_KINDS = {
    kind.status: kind
    for kind in (MALFORMED_REQUEST, HEADERS_TOO_LARGE, NOT_IMPLEMENTED, HTTP_VERSION)
}


class StrictHTTP1(H11Protocol):
    """Takes methods as they are written, speaks nothing but HTTP/1, and says why it refuses.

    Hypercorn turns `get` into GET, so that a proxy's rule for one would not hold for the other, and
    goes over to HTTP/2 in clear text, past a proxy that passes the upgrade on.
    """

    async def _check_protocol(self, event: h11.Request) -> None:
        """Stay with HTTP/1: RFC 9113 (3.1) took the upgrade to h2c back."""

    async def _create_stream(self, request: h11.Request) -> None:
        if not request.http_version.startswith(b"1."):
            await self._refuse(HTTP_VERSION, request)
        elif request.method != request.method.upper():
            await self._refuse(NOT_IMPLEMENTED, request)
        else:
            await super()._create_stream(request)

    async def _refuse(self, kind: ProblemType, request: h11.Request) -> None:
        # Without a stream, what else comes on this connection is not read.
        await self._send_problem(kind, with_body=request.method != b"HEAD")
        await self.send(Closed())

    async def _send_error_response(self, status_code: int) -> None:
        await self._send_problem(_KINDS.get(status_code, MALFORMED_REQUEST))

    async def _send_problem(self, kind: ProblemType, *, with_body: bool = True) -> None:
        fields, body = problem(Refusal(kind, kind.help), "")
        fields += [(b"connection", b"close"), *self.config.response_headers("h11")]
        await self._send_h11_event(h11.Response(status_code=kind.status, headers=fields))
        if with_body:
            await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())
