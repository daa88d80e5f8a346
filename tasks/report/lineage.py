"""Where a row comes from: the chain from a seed row to it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tasks.core.examples import Example, read_examples
from tasks.report.choice import choose
from tasks.report.records import IterationRecord


@dataclass(frozen=True)
class Ancestor:
    """One link of a chain; `row` is None when the data sets of the loop do not hold it."""

    id: str
    row: Example | None


class Lineage:
    """All training rows of a loop by id, and the chains between them."""

    def __init__(self, rows: Iterable[Example]) -> None:
        self.rows: dict[str, Example] = {}
        for row in rows:
            self.rows.setdefault(row.id, row)

    def chain(self, row: Example) -> list[Ancestor]:
        """From the seed row to `row` itself; a seed row's chain is that row alone."""
        links, seen = [Ancestor(row.id, row)], set()
        parent = row.parent
        # Ids are read from data, in which a row may name itself or its own descendant as its parent.
        while parent is not None and parent not in seen:
            seen.add(parent)
            found = self.rows.get(parent)
            links.append(Ancestor(parent, found))
            parent = found.parent if found else None
        return links[::-1]


@dataclass(frozen=True)
class Origins:
    """Rows of one training set by who wrote them: the user ("seed"), or a model ("synthetic").

    Of a policy's own samples, `synthetic` are the samples and `seed` the training rows that stand among them.
    """

    iteration: int
    seed: int
    synthetic: int


def read_lineage(records: list[IterationRecord], *, sampled: bool = False) -> tuple[Lineage, list[Origins]]:
    """The lineage of a loop, and the origins of each iteration's training rows, every data set read once."""
    read: dict[str, list[Example]] = {}
    origins = []
    for record in records:
        for ref in (record.train, record.kept):
            if ref is not None and ref.digest not in read:
                read[ref.digest] = read_examples(ref)
        trained_on = read[record.trained_on.digest] if record.trained_on else []
        count = Counter(_written(row, sampled) for row in trained_on)
        origins.append(Origins(record.number, seed=count[False], synthetic=count[True]))
    return Lineage(row for rows in read.values() for row in rows), origins


def _written(row: Example, sampled: bool) -> bool:
    """Whether a model wrote the row: where a loop trains on samples, its data may hold an earlier teacher's rows."""
    return row.completion is not None if sampled else row.origin == "synthetic"


@dataclass(frozen=True)
class Chains:
    """The synthetic rows, or the samples, of a training set: how many, and the chains of some."""

    count: int
    shown: list[list[Ancestor]]


def chains(
    record: IterationRecord, lineage: Lineage, most: int, seed: int, *, sampled: bool = False
) -> Chains:
    """The chains of the synthetic rows (or samples) that an iteration trained on, of more than `most` a random
    choice."""
    rows = read_examples(record.trained_on) if record.trained_on else []
    written = [row for row in rows if _written(row, sampled)]
    return Chains(len(written), [lineage.chain(row) for row in choose(written, most, seed)])
