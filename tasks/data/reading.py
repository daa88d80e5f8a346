"""From an address to examples: the columns that count, every cell checked."""

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Protocol

from tasks.core.errors import UserError
from tasks.core.examples import Example, make_example
from tasks.data.faults import refuse
from tasks.data.formats import Row, parse
from tasks.data.gym import PREFIX as GYM_PREFIX
from tasks.data.gym import read_gym
from tasks.data.hub import PREFIX, read_hub
from tasks.data.ranges import by_ranges, parquet_columns
from tasks.data.sources import contents, data_files

HUB_SPLITS = ("train", "test", "validation")
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")


class Columns(Protocol):
    """Which columns count; the addresses of the splits stand beside them, by the splits' names."""

    @property
    def input(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def choices(self) -> str: ...


class BadCell(Exception):
    """A cell that is no text; its message says why."""


def read_located(
    config: Columns, split: str, *, field: str = "", answered: bool = True
) -> list[tuple[str, Example]]:
    """The rows of `read_checked`. Raises UserError as that does, and for cells that are at fault, naming up to five
    places."""
    located, faults = read_checked(config, split, field=field, answered=answered)
    refuse(faults, field=field or f"data.{split}", mend="fill or remove these rows")
    return located


def read_checked(
    config: Columns, split: str, *, field: str = "", answered: bool = True
) -> tuple[list[tuple[str, Example]], list[str]]:
    """The rows of a split ("train", "test", "validation") in their order, each with the place it stands at, and what is
    wrong with those whose cells are empty, null, lists or objects. Numbers and truth values become text. Without a
    column for it, the target is empty; so it is, unless rows have to be `answered`, where the rows or one of them have
    none.

    Raises UserError naming the field (the split's, unless another is given) for a source that cannot be read, and a
    column that does not exist.
    """
    field, address = field or f"data.{split}", getattr(config, split)
    if address.startswith(GYM_PREFIX):
        return read_gym(address, field), []
    columns = [column for column in (config.input, config.target, config.choices) if column]
    split = split if split in HUB_SPLITS else "train"
    rows = read_rows(address, field, split=split, columns=columns)
    _check_columns(config, rows, answered)
    located, faults = [], []
    for place, cells in rows:
        try:
            choices = _choices(cells, config.choices) if config.choices else []
            has = bool(config.target) and (answered or cells.get(config.target) not in (None, ""))
            target = cell_text(cells, config.target) if has else ""
            example = make_example(cell_text(cells, config.input), target, choices)
        except BadCell as error:
            faults.append(f"{place}, {error}")
        else:
            located.append((place, example))
    return located, faults


def read_rows(address: str, field: str, *, split: str, columns: Sequence[str] = ()) -> list[Row]:
    """The rows at an address, for the configuration field `field`; `split` is taken of a data set of the hub whose
    address names none. Where `columns` are named, others may be left out. Raises UserError when there is no row, or
    they cannot be read."""
    if not address:
        raise UserError(
            "no rows are named", field=field, mend=f"give a file, for example --{field}=rows.jsonl"
        )
    if address.startswith(PREFIX):
        rows = read_hub(address, field, split)
    else:
        found = data_files(address, field)
        whole = [file for file in found if not by_ranges(file, columns)]
        bytes_of = dict(zip((file.name for file in whole), contents(whole, field), strict=True))
        rows = [
            row
            for file in found
            for row in (
                parse(file.name, bytes_of.pop(file.name), field)
                if file.name in bytes_of
                else parquet_columns(file, columns, field)
            )
        ]
    if not rows:
        raise UserError(f"{address} has no rows", field=field, mend="give at least one row")
    return rows


def _check_columns(config: Columns, rows: list[Row], answered: bool) -> None:
    existing = dict.fromkeys(column for _, cells in rows for column in cells)
    for field in ("input", "target", "choices") if answered else ("input", "choices"):
        column = getattr(config, field)
        if column and column not in existing:
            raise UserError(
                f"{rows[0][0].rpartition(', ')[0]} has no column {column!r}",
                field=f"data.{field}",
                mend=f"its columns are {', '.join(existing)}; choose one with --data.{field}=NAME",
            )


def cell_text(cells: dict[str, Any], column: str) -> str:
    """The text of a cell; numbers and truth values become text. Raises BadCell for all else, and for an empty text."""
    value = cells.get(column)
    if isinstance(value, float) and math.isnan(value):
        value = None
    if isinstance(value, int | float | Decimal):
        return str(value)
    if not isinstance(value, str):
        kinds = {type(None): "is null", list: "is a list", dict: "is an object"}
        raise BadCell(f"column {column!r} {kinds.get(type(value), 'is ' + type(value).__name__)}, not text")
    if not value.strip():
        raise BadCell(f"column {column!r} is empty")
    if _HALF_A_CHARACTER.search(value):
        raise BadCell(f"column {column!r} holds half a character (a lone surrogate)")
    return value


def _choices(cells: dict[str, Any], column: str) -> list[str]:
    value = cells.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise BadCell(f"column {column!r} is no JSON list: {error}") from error
    if not isinstance(value, list):
        raise BadCell(f"column {column!r} is no list of choices")
    return [cell_text({column: choice}, column) for choice in value]
