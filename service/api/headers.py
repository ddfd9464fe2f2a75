"""The header fields of answers, as the OpenAPI document describes them."""

from typing import Any

Json = dict[str, Any]

HEADERS: dict[str, Json] = {
    "Location": {
        "description": "Where the job is.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Retry-After": {
        "description": "Seconds after which it is worth asking again; absent once the job has ended.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Preference-Applied": {
        "description": "Which preferences of the request's Prefer header were honoured (RFC 7240).",
        "schema": {"type": "string"},
    },
    "ETag": {"description": "Names this state of the job.", "schema": {"type": "string"}},
    "WWW-Authenticate": {
        "description": "How a caller makes itself known (RFC 6750).",
        "schema": {"type": "string"},
    },
    "Allow": {"description": "The methods that the address takes.", "schema": {"type": "string"}},
    "Vary": {
        "description": "Which headers of the request made the answer what it is.",
        "schema": {"type": "string"},
    },
    "Cache-Control": {
        "description": "How it may be kept (RFC 9111).",
        "schema": {"type": "string"},
    },
    "Last-Modified": {"description": "When the file was made.", "schema": {"type": "string"}},
    "X-Content-Type-Options": {
        "description": "No browser shall take it for another type.",
        "schema": {"const": "nosniff"},
    },
    "X-Accel-Buffering": {
        "description": "No proxy shall gather events.",
        "schema": {"const": "no"},
    },
    "Content-Security-Policy": {
        "description": "What a browser may load for the page.",
        "schema": {"type": "string"},
    },
    "Referrer-Policy": {"description": "What links tell.", "schema": {"type": "string"}},
    "RateLimit": {
        "description": "How many requests are left, and when all are (draft-ietf-httpapi-ratelimit-headers).",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "How many requests in how many seconds (setting: rate_limit).",
        "schema": {"type": "string"},
    },
}

OF_PROBLEMS = ("Cache-Control", "X-Content-Type-Options")


def references(*names: str) -> Json:
    """What stands in an answer that has header fields of these names."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
