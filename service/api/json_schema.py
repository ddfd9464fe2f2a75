"""JSON Schemas as this API publishes them: what they admit is what it accepts."""

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from jobs import forms
from jobs.registry import Task

NUL_FREE = "^[^\\u0000]*$"


class PublishedSchema(GenerateJsonSchema):
    """Strings hold no NUL, as the gate demands; no titles that only repeat a name."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default", "skipped-discriminator"}  # noqa: RUF012

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        made = super().str_schema(schema)
        if self.mode == "validation":
            if "pattern" in made:
                made["allOf"] = [{"pattern": NUL_FREE}]
            else:
                made["pattern"] = NUL_FREE
        return made

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        if schema.get("tz_constraint") == "naive":
            return {"type": "string", "pattern": forms.NAIVE_DATETIME}
        return {"type": "string", "format": "date-time"}

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonSchemaValue:
        # The format "time" demands a UTC offset, which a time of day rarely has.
        return {"type": "string", "pattern": forms.TIME}

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        # The format "duration" knows neither fractions nor a minus, which Python writes.
        return {"type": "string", "pattern": forms.DURATION}

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        made = super().decimal_schema(schema)
        for part in (made, *made.get("anyOf", ())):
            if part.get("type") == "string":
                part["pattern"] = forms.DECIMAL
        return made

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        made = super().dict_schema(schema)
        by_pattern = made.get("patternProperties", {})
        if NUL_FREE in by_pattern:
            del made["patternProperties"]
            made["additionalProperties"] = by_pattern[NUL_FREE]
            made["propertyNames"] = {"pattern": NUL_FREE}
        return made

    def set_schema(self, schema: core_schema.SetSchema) -> JsonSchemaValue:
        return self._repeats(super().set_schema(schema))

    def frozenset_schema(self, schema: core_schema.FrozenSetSchema) -> JsonSchemaValue:
        return self._repeats(super().frozenset_schema(schema))

    def _repeats(self, made: JsonSchemaValue) -> JsonSchemaValue:
        # A value sent twice is taken once, not refused.
        if self.mode == "validation":
            made.pop("uniqueItems", None)
        return made

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:
        return value  # as declared, not by the alphabet

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def task_schemas(task: Task[..., Any]) -> tuple[JsonSchemaValue, JsonSchemaValue]:
    """What a task takes and what it gives, each a schema that stands alone."""
    return (
        task.args_adapter.json_schema(mode="validation", schema_generator=PublishedSchema),
        task.result_adapter.json_schema(mode="serialization", schema_generator=PublishedSchema),
    )


Wanted = tuple[str, JsonSchemaMode, TypeAdapter[Any]]


def components(
    wanted: Sequence[Wanted],
) -> tuple[dict[str, JsonSchemaValue], dict[str, JsonSchemaValue]]:
    """The schema of each wanted type by its key, referring to named components; and these."""
    made, shared = TypeAdapter.json_schemas(
        wanted, ref_template="#/components/schemas/{model}", schema_generator=PublishedSchema
    )
    named = shared.get("$defs", {})
    for name, part in named.items():
        if name.endswith(("-Input", "-Output")):
            part["title"] = name  # two by one title, and a generated client has only the first
    return {str(key): value for (key, _mode), value in made.items()}, named
