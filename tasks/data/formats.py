"""From bytes to rows: JSON lines, a JSON list, CSV, TSV and Parquet, each also gzipped."""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from tasks.core.errors import UserError
from tasks.data.faults import refuse

Row = tuple[str, dict[str, Any]]
"""Where a row stands ("train.jsonl, line 3"), and its cells by column."""


def suffix(name: str) -> str:
    """The ending that decides the format, in lower case: ".csv" of "rows.csv.gz"."""
    return PurePosixPath(name.lower().removesuffix(".gz")).suffix


def parse(name: str, data: bytes, field: str) -> list[Row]:
    """The rows of a file. Raises UserError naming file, place and mend for whatever is not in its format."""
    parser = SUFFIXES.get(suffix(name))
    if parser is None:
        raise UserError(
            f"{name} has an ending that is not known",
            field=field,
            mend=f"files that are read end in {', '.join(SUFFIXES)}, each also with .gz",
        )
    if name.lower().endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(
                f"{name} is not whole gzip: {error}", field=field, mend="copy it again"
            ) from error
    if not data.strip():
        raise UserError(f"{name} is empty", field=field, mend="give a file with at least one row")
    return parser(name, data, field)


def _text(name: str, data: bytes, field: str) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{name} is not UTF-8: byte {data[error.start]:#04x} at offset {error.start} (line {line})",
            field=field,
            mend="save it as UTF-8, for example: iconv -f latin1 -t utf-8 OLD > NEW",
        ) from error


def _json_lines(name: str, data: bytes, field: str) -> list[Row]:
    rows: list[Row] = []
    faults = []
    for number, line in enumerate(_text(name, data, field).split("\n"), 1):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            faults.append(f"{place}, column {error.colno}: {error.msg}")
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
            faults.append(f"{place}: {error}")
        else:
            if isinstance(value, dict):
                rows.append((place, value))
            else:
                faults.append(f"{place}: {_kind(value)} instead of an object")
    refuse(
        faults, field=field, mend='every line must be one JSON object, such as {"input": "…", "target": "…"}'
    )
    return rows


def _json_list(name: str, data: bytes, field: str) -> list[Row]:
    mend = "the file must be one list of objects; if it has one object a line, let its name end in .jsonl"
    try:
        values = json.loads(_text(name, data, field))
    except json.JSONDecodeError as error:
        where = f"{name}, line {error.lineno}, column {error.colno}"
        raise UserError(f"{where}: {error.msg}", field=field, mend=mend) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: {error}", field=field, mend=mend) from error
    if not isinstance(values, list):
        raise UserError(f"{name} holds {_kind(values)} instead of a list", field=field, mend=mend)
    odd = [
        f"{name}, item {number}: {_kind(value)} instead of an object"
        for number, value in enumerate(values, 1)
        if not isinstance(value, dict)
    ]
    refuse(odd, field=field, mend=mend)
    return [(f"{name}, item {number}", value) for number, value in enumerate(values, 1)]


def _separated(separator: str) -> Callable[[str, bytes, str], list[Row]]:
    def parse_separated(name: str, data: bytes, field: str) -> list[Row]:
        csv.field_size_limit(sys.maxsize)  # the module's own limit of 131,072 characters is no limit of ours
        reader = csv.reader(
            io.StringIO(_text(name, data, field), newline=""), delimiter=separator, strict=True
        )
        rows: list[Row] = []
        faults = []
        try:
            header = next(reader, [])
            for number, cells in enumerate((cells for cells in reader if cells), 1):
                place = f"{name}, row {number} (line {reader.line_num})"
                if len(cells) != len(header):
                    faults.append(f"{place}: {len(cells)} cells under {len(header)} columns")
                rows.append((place, dict(zip(header, cells, strict=False))))
        except csv.Error as error:
            faults.append(f"{name}, line {reader.line_num}: {error}")
        refuse(
            faults,
            field=field,
            mend='a cell that holds the separator, a line break or a " stands in double quotes',
        )
        if twice := sorted({column for column in header if header.count(column) > 1}):
            raise UserError(
                f"{name} has more than one column {twice[0]!r}",
                field=field,
                mend="give every column its own name",
            )
        return rows

    return parse_separated


def _parquet(name: str, data: bytes, field: str) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        values = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{name} is not whole Parquet: {reason}", field=field, mend="write it again"
        ) from error
    return [(f"{name}, row {number}", value) for number, value in enumerate(values, 1)]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


SUFFIXES: dict[str, Callable[[str, bytes, str], list[Row]]] = {
    ".jsonl": _json_lines,
    ".json": _json_list,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".parquet": _parquet,
}
"""The parser of every known ending."""
