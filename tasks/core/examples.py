"""Examples: the one row shape every stage reads and writes, and where each row came from."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.core.references import DatasetRef


class Example(BaseModel):
    """One question with its right answer.

    `origin` tells a user's own row ("seed") from one a teacher wrote ("synthetic"); `parent` is the id of the row
    it was written from, `root` the id of the seed row at the start of that chain, `step` the iteration it came in.
    A model's own answer to a row is a row as well (a sample): `completion` is that answer word for word, and what
    is trained on; `target` stays the right answer. A row with an empty `input` is plain text: all of `target` is
    trained on, and no prompt stands before it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    input: str
    target: str
    choices: list[str] = Field(default_factory=list)
    origin: Literal["seed", "synthetic"] = "seed"
    parent: str | None = None
    root: str | None = None
    step: int = 0
    facts: dict[str, Any] = Field(default_factory=dict)
    """What a verifier needs to know beside the target; JSON values, no part of the id."""
    completion: str | None = None
    cut: bool = False
    """The completion reached its token limit and did not end by itself."""
    reward: float | None = None
    """What the completion is worth, in [0, 1]; None while it is not scored."""
    tokens_reversed: bool = False
    """The tokens of what is trained on are put from last to first."""


def content_id(input: str, target: str, choices: Iterable[str] = ()) -> str:
    """16 hexadecimal digits that depend on the row's content alone, so that a row keeps its id across files."""
    text = json.dumps([input, target, list(choices)], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_example(input: str, target: str, choices: Iterable[str] = (), **lineage: Any) -> Example:
    """An example with its content id."""
    choices = list(choices)
    return Example(
        id=content_id(input, target, choices), input=input, target=target, choices=choices, **lineage
    )


def make_sample(parent: Example, completion: str, **changes: Any) -> Example:
    """A model's answer to `parent` as a row of its own, whose id hangs on question and answer."""
    lineage = {"origin": "synthetic", "parent": parent.id, "root": parent.root or parent.id}
    sample_id = content_id(parent.input, parent.target, [*parent.choices, completion])
    return parent.model_copy(
        update={"id": sample_id, "completion": completion, "reward": None} | lineage | changes
    )


def write_rows(path: Path, rows: Iterable[BaseModel | dict[str, Any]]) -> DatasetRef:
    """Write rows as JSON lines to `path` and return the reference (digest of the file's bytes)."""
    return write_lines(path, map(row_line, rows))


_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode  # `json.dumps` makes one at every call


def row_line(row: BaseModel | dict[str, Any]) -> bytes:
    """A row as a line of a data set's file."""
    value = row.model_dump(mode="json", exclude_defaults=True) if isinstance(row, BaseModel) else row
    return _encode(value).encode() + b"\n"


def write_lines(path: Path, lines: Iterable[bytes]) -> DatasetRef:
    """Write lines as `row_line` makes them to `path` and return the reference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, count = hashlib.sha256(), 0
    with path.open("wb") as file:
        for line in lines:
            digest.update(line)
            file.write(line)
            count += 1
    return DatasetRef(uri=str(path), digest=digest.hexdigest(), rows=count)


def read_lines(ref: DatasetRef) -> Iterator[bytes]:
    """The lines behind a reference, its bytes checked against the digest first."""
    from tasks.core.store import fetch

    with fetch(ref).open("rb") as file:
        yield from file


def read_records(ref: DatasetRef) -> Iterator[dict[str, Any]]:
    """The rows behind a reference as dictionaries, its bytes checked against the digest first."""
    return map(json.loads, read_lines(ref))


def read_examples(ref: DatasetRef) -> list[Example]:
    """The examples behind a reference, its bytes checked against the digest first."""
    return [Example.model_validate(record) for record in read_records(ref)]
