"""The `Idempotency-Key` header: a request that may be sent again."""

import re

from .problems import BAD_KEY, Refusal
from .routes import Parameter, current_request, field

MAX_LENGTH = 255

_PATTERN = rf'^([!#-~]{{1,{MAX_LENGTH}}}|"[!#-~]{{1,{MAX_LENGTH}}}")$'
_form = re.compile(_PATTERN.removesuffix("$"))

IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "A name for this request, new for each: sent again with it, the request makes no second job and is answered"
    " with the first. It is remembered as long as that job is kept (setting: retention). In double quotes or not.",
    {"type": "string", "pattern": _PATTERN},
    place="header",
)


def key_of_request() -> str | None:
    """The key that came with the request at hand, if one did. Raises `Refusal`."""
    given = field(current_request(), "Idempotency-Key")
    if not given:
        return None
    text = given[0].strip()
    if len(given) > 1 or not _form.fullmatch(text):
        raise Refusal(
            BAD_KEY,
            f"one key of 1 to {MAX_LENGTH} visible ASCII characters but quotes, such as a UUID, is expected",
        )
    return text.strip('"')
