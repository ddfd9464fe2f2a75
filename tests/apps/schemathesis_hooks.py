"""What schemathesis is told of this API beyond its document, and what it checks beyond its own checks."""

import re
from typing import Any
from uuid import uuid4

import schemathesis

from service.api.idempotency import IDEMPOTENCY_KEY

OF_ANY_ANSWER = {"connection", "content-length", "content-type", "date", "transfer-encoding"}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """What OpenAPI has no words for, and other tests try: an Idempotency-Key is new for each request; what
    `atomic` may be depends on the media type; no string holds a NUL, not even where anything goes."""
    key = (case.headers or {}).get(IDEMPOTENCY_KEY.name)
    if isinstance(key, str) and re.fullmatch(IDEMPOTENCY_KEY.schema["pattern"], key):
        case.headers[IDEMPOTENCY_KEY.name] = str(uuid4())
    if case.operation.path == "/jobs/batch" and (case.query or {}).get("atomic") in (
        False,
        "false",
    ):
        case.query["atomic"] = "true"
    if case.meta.generation.mode.is_positive:
        case.body = _without_nul(case.body)


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """False for what is meant: a job that was cancelled can still be looked at, and one that has not ended has
    no result."""
    if type(failure).__name__ == "UseAfterFree":
        return False
    if type(failure).__name__ == "EnsureResourceAvailability":
        return bool(response.json()["type"] != "/problems/result-not-ready")
    return True


@schemathesis.check
def all_is_documented(ctx: Any, response: Any, case: Any) -> None:
    """The status, the kind of problem and each header field are written in the operation, or are among what
    any address may answer with."""
    if response.request.method == "OPTIONS":
        return
    document = case.operation.schema.raw_schema
    answers = case.operation.definition.raw["responses"]
    known = [_resolved(answers["default"], document)]
    if str(response.status_code) in answers:
        known.insert(0, _resolved(answers[str(response.status_code)], document))
    if response.status_code >= 400:
        problem = response.json()
        kinds = [
            example["value"]
            for answer in known
            for example in answer["content"]["application/problem+json"]["examples"].values()
        ]
        said = (problem["type"], problem["status"])
        assert said in {(kind["type"], kind["status"]) for kind in kinds}, f"undocumented: {said}"
        assert problem["status"] == response.status_code
    else:
        assert len(known) == 2, f"undocumented: {response.status_code}"
    named = {name.lower() for answer in known for name in answer.get("headers", ())}
    rest = {name.lower() for name in response.headers} - named - OF_ANY_ANSWER
    assert not rest, f"undocumented: {sorted(rest)}"


def _resolved(part: Any, document: Any) -> Any:
    if "$ref" not in part:
        return part
    for name in part["$ref"].removeprefix("#/").split("/"):
        document = document[name]
    return document


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(member) for name, member in value.items()}
    return value
