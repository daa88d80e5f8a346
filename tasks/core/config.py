"""The base of every configuration model, and the identity of a value for caching."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from tasks.core.references import ModelRef, Reference

PLACEMENT: dict[str, Any] = {"placement": True}
"""`json_schema_extra` of a field that says where or how fast work is done, never what comes out:
it is left out of cache keys, so that moving a server or raising a concurrency repeats nothing."""


class Config(BaseModel):
    """Settings of a stage or flow: at once the Prefect form, the YAML file and the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _keep_own_defaults(cls, given: Any) -> Any:
        """Where only some settings of a part are given, the others stay as this model, and not the part's own class,
        has them by default: `reward.time_limit_s=5` does not take back a flow's `reward.by`."""
        if not isinstance(given, dict):
            return given
        defaults = {
            name: field.default.model_dump()
            for name, field in cls.model_fields.items()
            if isinstance(field.default, Config) and isinstance(given.get(name), dict)
        }
        return given | {name: _filled(given[name], default) for name, default in defaults.items()}


def _filled(given: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """`given`, with what it lacks of `default`, at every depth."""
    both = {
        name: _filled(given[name], default[name])
        for name in given.keys() & default.keys()
        if isinstance(given[name], dict) and isinstance(default[name], dict)
    }
    return default | given | both


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
