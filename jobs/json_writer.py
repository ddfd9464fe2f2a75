"""Values of a type as JSON that passes the gate."""

from typing import Any

from pydantic import Secret, SecretBytes, SecretStr, TypeAdapter
from pydantic_core import PydanticSerializationError, SchemaSerializer, to_json

from . import strict_json
from .errors import InvalidJson, Problem

_UNWRITABLE = (PydanticSerializationError, ValueError, TypeError, RecursionError)


class JsonWriter:
    """Writes values of one type. `misfit` says in words what is wrong with one that is not of the type;
    `by_alias` and `round_trip` are pydantic's; with `reveal` secrets are written as they are."""

    def __init__(
        self,
        adapter: TypeAdapter[Any],
        misfit: str,
        *,
        by_alias: bool,
        round_trip: bool,
        reveal: bool = False,
    ) -> None:
        # NaN as NaN, so that it is seen and refused: by default it would turn into null.
        config = {"ser_json_inf_nan": "constants", "ser_json_bytes": "base64"}
        self._serializer = SchemaSerializer(adapter.core_schema, config)  # type: ignore[arg-type]
        self._misfit, self._by_alias, self._round_trip = misfit, by_alias, round_trip
        self._reveal = reveal

    def write(self, value: Any, max_bytes: int | None) -> str:
        """`value` as JSON text. Raises `InvalidJson`."""
        try:
            raw = self._raw(value)
        except _UNWRITABLE as error:
            raise InvalidJson(self._explain(value, error)) from None
        if value is None and raw == b"null":  # as the results of most jobs are
            return "null"
        if b"null" in raw:
            self._refuse_hidden_nan(value)
        strict_json.check(raw, max_bytes=max_bytes)
        return raw.decode()

    def _raw(self, value: Any) -> bytes:
        how: Any = {
            "by_alias": self._by_alias,
            "round_trip": self._round_trip,
            "warnings": "error",
        }
        if not self._reveal:
            return self._serializer.to_json(value, **how)
        plain = _revealed(self._serializer.to_python(value, **how))
        return to_json(plain, inf_nan_mode="constants", bytes_mode="base64")

    def _refuse_hidden_nan(self, value: Any) -> None:
        """A model within has its own configuration, by which its NaN has become null."""
        plain = self._serializer.to_python(value, by_alias=True)
        raw = to_json(plain, inf_nan_mode="constants", bytes_mode="base64", serialize_unknown=True)
        if b"NaN" in raw or b"Infinity" in raw:
            problems = list(strict_json.wrong_values(plain))
            if problems:
                raise InvalidJson(problems)

    def _explain(self, value: Any, error: Exception) -> list[Problem]:
        try:
            problems = list(strict_json.wrong_values(value))
        except RecursionError:
            problems = []
        if not problems and isinstance(value, dict):
            for name, member in value.items():
                try:
                    to_json(member)
                except _UNWRITABLE as inner:
                    pointer = f"/{strict_json.escape(name)}"
                    problems.append(Problem(pointer, f"{self._misfit}: {_said(inner)}"))
        return problems or [Problem("", f"{self._misfit}: {_said(error)}")]


def _revealed(plain: Any) -> Any:
    """A dumped value, its secrets as they are: as JSON, pydantic would write asterisks."""
    if isinstance(plain, SecretStr | SecretBytes | Secret):
        return _revealed(plain.get_secret_value())
    if isinstance(plain, dict):
        return {_revealed(key): _revealed(member) for key, member in plain.items()}
    if isinstance(plain, list | tuple | set | frozenset):
        return [_revealed(member) for member in plain]
    return plain


def _said(error: Exception) -> str:
    return " ".join(str(error).removeprefix("Pydantic serializer warnings:").split())
