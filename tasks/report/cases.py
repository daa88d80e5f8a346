"""What was wrong and what the teacher made of it: a failed row beside the rows written from it."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from tasks.core.examples import Example, read_examples, read_records
from tasks.core.references import DatasetRef
from tasks.evaluate import Prediction
from tasks.filter.rules import Rejection
from tasks.report.choice import choose
from tasks.report.compare import read_predictions
from tasks.report.lineage import Ancestor, Lineage
from tasks.report.records import IterationRecord

MOST_PER_CASE = 5  # kept rows, rejected rows and requests shown for one failed row


@dataclass(frozen=True)
class Written:
    """A row that the teacher wrote, where it comes from, and, when it was rejected, why."""

    row: Example
    chain: list[Ancestor]
    rejection: Rejection | None = None
    against: str | None = None
    """The input of the row that it repeats."""


@dataclass(frozen=True)
class Case:
    """A failed row, the student's answer to it, and what the teacher wrote from it."""

    failed: Example
    chain: list[Ancestor]
    answer: Prediction | None
    kept: list[Written]
    kept_count: int
    rejected: list[Written]
    rejected_count: int
    exchanges: list[dict[str, Any]]
    exchange_count: int


@dataclass(frozen=True)
class Cases:
    """The failed rows of one iteration: how many, and some of them in full."""

    iteration: int
    count: int
    shown: list[Case]


def read_cases(records: list[IterationRecord], lineage: Lineage, most: int, seed: int) -> list[Cases]:
    """The cases of every iteration with failed rows; `most` are shown in all, spread over the iterations."""
    failing = [(record, ref) for record in records if (ref := record.failures) is not None and ref.rows]
    share = -(-most // len(failing)) if failing else 0
    return [_read_cases(record, failures, lineage, share, seed) for record, failures in failing]


def _read_cases(
    record: IterationRecord, failures: DatasetRef, lineage: Lineage, most: int, seed: int
) -> Cases:
    failed = choose(read_examples(failures), most, f"{seed} {record.number}")
    ids = {row.id for row in failed}
    answers = _answers(record, "train")
    tested = _answers(record, "test")

    def repeated(id: str | None) -> str | None:
        if id is None:
            return None
        row = lineage.rows.get(id) or tested.get(id)
        return row.input if row else id

    kept: dict[str | None, list[Written]] = defaultdict(list)
    for row in read_examples(record.kept) if record.kept else []:
        if row.parent in ids:
            kept[row.parent].append(Written(row, lineage.chain(row)))
    rejected: dict[str | None, list[Written]] = defaultdict(list)
    for line in (line for ref in record.rejected for line in read_records(ref)):
        rejection = Rejection.model_validate(line)
        row = rejection.example
        if row.parent in ids:
            rejected[row.parent].append(
                Written(row, lineage.chain(row), rejection, repeated(rejection.against))
            )
    exchanges: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for exchange in (line for ref in record.exchanges for line in read_records(ref)):
        if exchange["parent"] in ids:
            exchanges[exchange["parent"]].append(exchange)
    return Cases(
        record.number,
        failures.rows,
        [
            Case(
                failed=row,
                chain=lineage.chain(row),
                answer=answers.get(row.id),
                kept=kept[row.id][:MOST_PER_CASE],
                kept_count=len(kept[row.id]),
                rejected=rejected[row.id][:MOST_PER_CASE],
                rejected_count=len(rejected[row.id]),
                exchanges=exchanges[row.id][:MOST_PER_CASE],
                exchange_count=len(exchanges[row.id]),
            )
            for row in failed
        ],
    )


def _answers(record: IterationRecord, split: str) -> dict[str, Prediction]:
    if split not in record.splits:
        return {}
    return {answer.id: answer for answer in read_predictions(record.splits[split].predictions)}
