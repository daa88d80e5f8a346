"""What lies at a data location: the rows of every file that can be read, and the files that cannot, with the reason."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import BaseModel

from tasks.core.errors import UserError
from tasks.core.examples import Example
from tasks.data.config import DataConfig
from tasks.data.faults import MOST_SHOWN
from tasks.data.formats import SUFFIXES, suffix
from tasks.data.gym import PREFIX as GYM
from tasks.data.hub import PREFIX as HUB
from tasks.data.sound_rows import FAULTY, TOO_LONG, read_cells
from tasks.data.sources import data_files
from tasks.problems.base import ProblemConfig
from tasks.problems.classification import Classification
from tasks.problems.load import load_problem

FIELD = "location"


class BrokenFile(BaseModel):
    """A file that was left out as a whole, and why."""

    file: str
    reason: str

    def __str__(self) -> str:
        return self.reason if self.reason.startswith(self.file) else f"{self.file}: {self.reason}"


@dataclass(frozen=True)
class Found:
    """The rows of a location, file by file in order of name, the files that cannot be used, and how many rows were left
    out of others, by reason."""

    rows: list[Example]
    broken: list[BrokenFile]
    left_out: Counter[str] = field(default_factory=Counter)


def look(location: str, data: DataConfig, known_labels: Iterable[str] = ()) -> Found:
    """Read every data file at `location`: a file, a folder, or an address such as `s3://bucket/prefix`.

    A folder in which nothing has arrived yet holds no row. A file is broken when any of its rows is, when it lacks a
    column, or when a label of it differs from a known one only in case or spaces: half a file is not what its author
    meant, unless `data.faulty` says that such rows are left out. Raises UserError when the location itself cannot be
    read.
    """
    labels, rows, broken = set(known_labels), list[Example](), list[BrokenFile]()
    left_out = Counter[str]()
    for name in _names(location):
        try:
            one = data.model_copy(update={"train": name})
            counted = Counter[str]()
            found = _usable(data, [row for _, row in read_cells(one, "train", counted)], labels, counted)
        except UserError as error:
            broken.append(BrokenFile(file=name, reason=error.fault))
            continue
        rows += found
        left_out += counted
        labels |= {row.target for row in found}
    return Found(rows, broken, left_out)


def _names(location: str) -> list[str]:
    if not location or location.startswith((HUB, GYM)):
        raise UserError(
            f"{location or 'nothing'} is no place where files arrive",
            field=FIELD,
            mend=f"give a folder or an fsspec address, for example --{FIELD}=s3://bucket/new-rows",
        )
    from fsspec.core import url_to_fs

    try:
        return [file.name for file in data_files(location, FIELD)]
    except UserError:
        files, path = url_to_fs(location)
        # A folder without a data file is no mistake here: nothing has arrived yet.
        if files.isdir(path) and not any(suffix(entry) in SUFFIXES for entry in files.ls(path, detail=False)):
            return []
        raise


def _usable(data: DataConfig, rows: list[Example], labels: set[str], left_out: Counter[str]) -> list[Example]:
    """The rows that the problem can use and that are not too long. Raises UserError where there are others that
    `data.faulty` does not drop, and for labels that are nearly the same."""
    named = ProblemConfig(name=data.problem, instruction=data.instruction)
    problem = load_problem(named)
    if isinstance(problem, Classification):
        every = tuple(sorted(labels | {row.target for row in rows}))
        problem = load_problem(named.model_copy(update={"labels": every}))
    adapted = [problem.adapt(row) for row in rows]
    faults = {number: problem.fault(row) for number, row in enumerate(adapted, 1)}
    found = [f"row {number}: {fault}" for number, fault in faults.items() if fault]
    if found and data.faulty == "refuse":
        raise UserError("; ".join(found[:MOST_SHOWN]), field=FIELD)
    longest = data.longest_input
    short = [not longest or len(row.input) <= longest for row in adapted]
    kept = [
        row
        for number, (row, fits) in enumerate(zip(rows, short, strict=True), 1)
        if fits and not faults[number]
    ]
    left_out[FAULTY] += len(found)
    left_out[TOO_LONG.format(longest)] += len(rows) - len(found) - len(kept)
    return kept
