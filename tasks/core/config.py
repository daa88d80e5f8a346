"""The base of every configuration model, and the identity of a value for caching."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from tasks.core.references import ModelRef, Reference

PLACEMENT: dict[str, Any] = {"placement": True}
"""`json_schema_extra` of a field that says where or how fast work is done, never what comes out:
it is left out of cache keys, so that moving a server or raising a concurrency repeats nothing."""


class Config(BaseModel):
    """Settings of a stage or flow: at once the Prefect form, the YAML file and the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def identity(value: Any) -> Any:
    """The JSON value that decides whether two stage calls are the same one.

    A reference counts by its content's digest, not by where it lies; fields marked PLACEMENT do not count.
    """
    if isinstance(value, ModelRef):
        return [value.digest, identity(value.base)]
    if isinstance(value, Reference):
        return value.digest
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            name: identity(getattr(value, name))
            for name, field in fields.items()
            if not (isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("placement"))
        }
    if isinstance(value, dict):
        return {key: identity(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [identity(item) for item in value]
    return value
