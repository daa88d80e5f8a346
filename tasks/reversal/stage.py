"""Stage: rows and their reversed copies, shuffled together (arXiv 2403.13799: {x} and {REVERSE(x)}).

Rows are streamed: memory does not grow with their number.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from pydantic import BaseModel

from tasks.core.errors import UserError
from tasks.core.examples import read_lines, row_line, write_lines
from tasks.core.references import DatasetRef
from tasks.core.run import Run
from tasks.core.stage import Report, Stage
from tasks.entities import find
from tasks.entities.find import load_finder
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem
from tasks.reversal.config import ReversalConfig
from tasks.reversal.copies import Copies, Record
from tasks.reversal.shuffle import shuffled

REPORT_EVERY = 10_000


class ReversalInputs(BaseModel):
    """The rows, the problem that their questions belong to, and what the names are found with."""

    train: DatasetRef
    problem: ProblemConfig
    found_with: str = ""
    """Digest of the names or the model (`tasks.entities.find.content`)."""


class ReversalResult(BaseModel):
    """The rows with their copies."""

    mixed: DatasetRef
    copies: int
    """Reversed rows among them."""
    unchanged: int
    """Rows without a copy, because reversed they are the same."""
    without_entities: int
    """Texts in which no name was found (`entity`): they are reversed by words."""

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        counts = {"reversed": self.copies, "unchanged": self.unchanged}
        counts["without_entities"] = self.without_entities
        return {f"data/{name}": float(count) for name, count in counts.items()}


def run(config: ReversalConfig, inputs: ReversalInputs, out: Path, report: Report) -> ReversalResult:
    """Write `out`/mixed.jsonl. Raises UserError when there is no row, or names are to be given and no row has any."""
    if not inputs.train.rows:
        raise UserError("there is no row to reverse", field="data.train", mend="give at least one row")
    finder = load_finder(config.entities) if config.by == "entity" else None
    copies = Copies(config, load_problem(inputs.problem), finder)
    count = round(inputs.train.rows * (1 + config.ratio) * config.passes)
    order = Random(f"order {config.seed}")
    lines = shuffled(_all_lines(config, inputs.train, copies, report), count, order, out)
    mixed = write_lines(out / "mixed.jsonl", lines)
    given = config.by == "entity" and config.entities.by == "given"
    if given and copies.without_entities and not copies.with_entities:
        raise UserError(
            "no row has an entity that stands in it",
            field="reversal.entities",
            mend="name the entities in a column, or choose --reversal.entities.by=gazetteer",
        )
    return ReversalResult(
        mixed=mixed,
        copies=copies.made,
        unchanged=copies.unchanged,
        without_entities=copies.without_entities,
    )


def _all_lines(config: ReversalConfig, train: DatasetRef, copies: Copies, report: Report) -> Iterator[bytes]:
    """The lines of the rows as they are, and of the copies that are made of them, a pass after the other."""
    for number in range(config.passes):
        yield from read_lines(train)
        if config.by == "none":
            continue
        draw = Random(f"{config.seed} {number}")
        for copy in copies.of(_taken(config, train, draw), draw):
            if copies.made % REPORT_EVERY == 0:
                done = [copies.made, round(train.rows * config.ratio) * config.passes]
                report({"progress": done, "text": "reversed rows"})
            yield row_line(copy)


def _taken(config: ReversalConfig, train: DatasetRef, draw: Random) -> Iterator[Record]:
    """The rows to be copied: each as often as the ratio's whole part says, once more with its fraction for chance."""
    whole, fraction = divmod(config.ratio, 1)
    for line in read_lines(train):
        times = int(whole) + (draw.random() < fraction)
        for _ in range(times):
            yield json.loads(line)


STAGE = Stage("reverse", run, ReversalConfig, ReversalInputs, ReversalResult)


def reverse_rows(
    run: Run, config: ReversalConfig, train: DatasetRef, problem: ProblemConfig, *, label: str = "reverse"
) -> ReversalResult:
    """The step in a loop: the rows with their copies, or just the rows where no copies are wanted."""
    if config.by == "none":
        return ReversalResult(mixed=train, copies=0, unchanged=0, without_entities=0)
    found_with = find.content(config.entities) if config.by == "entity" else ""
    inputs = ReversalInputs(train=train, problem=problem, found_with=found_with)
    return run.stage(STAGE, config, inputs, label=label)
