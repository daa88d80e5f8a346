"""One configuration model from three sources: defaults, a YAML file, command line flags (the last word)."""

import difflib
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tasks.core.config import Config
from tasks.core.errors import UserError

C = TypeVar("C", bound=Config)


def read_config(model: type[C], program: str, arguments: Sequence[str]) -> C:
    """The configuration of `--config FILE` with flags such as `--data.train=x` on top.

    Raises UserError for a file that cannot be read, an unknown key or flag, and a value out of bounds; `--help`
    prints every field and exits.
    """
    file, flags = _split(arguments)
    values = _read_yaml(file) if file else {}
    given = _read_flags(model, program, flags)
    return validate(model, _merge(values, given))


def validate(model: type[C], values: Mapping[str, Any]) -> C:
    """The model of `values`; raises UserError with one line per wrong field."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_fault(model, detail) for detail in error.errors(include_url=False)]
        raise UserError(
            "the configuration does not fit:\n" + "\n".join(f"  {line}" for line in lines),
            mend="see `--help` for every field with its bounds",
        ) from error


def field_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every field of a model, nested ones with dots: `training.adapter.rank`."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from field_names(field.annotation, f"{prefix}{name}.")


def _split(arguments: Sequence[str]) -> tuple[str, list[str]]:
    file, flags, waiting = "", [], iter(arguments)
    for argument in waiting:
        if argument == "--config":
            file = next(waiting, "")
        elif argument.startswith("--config="):
            file = argument.removeprefix("--config=")
        else:
            flags.append(argument)
            continue
        if not file:
            raise UserError("--config needs a file", mend="--config deployments/configs/demo.yaml")
    return file, flags


def _read_yaml(file: str) -> dict[str, Any]:
    path = Path(file)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        near = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.glob("*.yaml")], n=3, cutoff=0.3
        )
        mend = (
            f"did you mean {', '.join(near)}?"
            if near
            else "the configs that come along are in deployments/configs"
        )
        raise UserError(f"there is no file {file}", field="--config", mend=mend) from error
    # PyYAML raises ValueError for a date that there is not.
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"{file} cannot be read: {error}", field="--config", mend="it has to be a YAML file"
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{file} holds no fields", field="--config", mend="write `field: value`, one a line")
    return values


def _read_flags(model: type[C], program: str, flags: list[str]) -> dict[str, Any]:
    from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict, SettingsError

    names = set(field_names(model))
    for flag in flags:
        name = flag.removeprefix("--").split("=")[0]
        if flag.startswith("--") and name not in names | {"help"}:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
            mend = f"did you mean --{' or --'.join(near)}?" if near else "see `--help` for every flag"
            raise UserError(f"unknown flag --{name}", mend=mend)

    class Parser(ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UserError(message, mend="see `--help` for every flag")

    class Flags(BaseSettings, model):  # type: ignore[misc, valid-type]
        model_config = SettingsConfigDict(
            extra="forbid", cli_use_class_docs_for_groups=True, cli_hide_none_type=True
        )

    Flags.__doc__ = model.__doc__
    # The source holds what was given on the command line, and nothing of the defaults.
    parser = Parser(prog=program, description=model.__doc__)
    try:
        return dict(CliSettingsSource(Flags, cli_parse_args=flags, root_parser=parser)())
    except SettingsError as error:
        raise UserError(
            f"a flag is not written as it has to be: {error}",
            mend="give lists and whole sections as JSON ('[1, 2]', '{\"rank\": 8}'), a section's fields by their own "
            "flags (--training.epochs=2); see `--help` for every flag",
        ) from error


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merge(under, value) if isinstance(value, dict) and isinstance(under, dict) else value
    return merged


NAMES_OF_KEYS = "key_env"
"""How fields end that name the environment variable of a key: what is given there by mistake is the key itself."""


def _fault(model: type[BaseModel], detail: Any) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, list(field_names(model)), n=1, cutoff=0.6)
        return f"{name}: there is no such field" + (f"; did you mean {near[0]}?" if near else "")
    key = name.endswith(NAMES_OF_KEYS) or name.split(".")[0] == "credentials" or _hidden(model, detail["loc"])
    shown = isinstance(detail["input"], str | int | float) and not key
    given = f" (given: {detail['input']!r})" if shown else ""
    return f"{name}: {detail['msg']}{given}" if name else f"{detail['msg']}"


def _hidden(model: type[BaseModel], loc: tuple[Any, ...]) -> bool:
    """Whether a model on the way to a field keeps what is given there out of messages."""
    for part in loc:
        if model.model_config.get("hide_input_in_errors"):
            return True
        field = model.model_fields.get(part)
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return False
        model = field.annotation
    return False


def fail(error: Exception) -> int:
    """Print an error that the user can act on; returns the exit code: 2 for a mistake of theirs, 1 otherwise."""
    print(f"\n{error}", file=sys.stderr)
    return 2 if isinstance(error, UserError) else 1
