"""The `Idempotency-Key` header: a request that may be sent again."""

import re

from .problems import BAD_KEY, Refusal
from .routes import Parameter, current_request, field

MAX_LENGTH = 255

IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "A name for this request, new for each: sent again with it, the request makes no second job and is answered"
    " with the first. It is remembered as long as that job is kept (setting: retention). In double quotes or not.",
    {"type": "string", "minLength": 1, "maxLength": MAX_LENGTH},
    place="header",
)

_KEY = re.compile(rf"[!-~]{{1,{MAX_LENGTH}}}")


def key_of_request() -> str | None:
    """The key that came with the request at hand, if one did. Raises `Refusal`."""
    given = field(current_request(), "Idempotency-Key")
    if not given:
        return None
    text = given[0].strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if len(given) > 1 or not _KEY.fullmatch(text):
        raise Refusal(
            BAD_KEY,
            f"one key of 1 to {MAX_LENGTH} visible ASCII characters, such as a UUID, is expected",
        )
    return text
