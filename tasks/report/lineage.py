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
    """Rows of one training set by who wrote them."""

    iteration: int
    seed: int
    synthetic: int


def read_lineage(records: list[IterationRecord]) -> tuple[Lineage, list[Origins]]:
    """The lineage of a loop, and the origins of each iteration's training rows, every data set read once."""
    rows: list[Example] = []
    origins = []
    for record in records:
        train = read_examples(record.train)
        count = Counter(row.origin for row in train)
        origins.append(Origins(record.number, count["seed"], count["synthetic"]))
        rows += train
        rows += read_examples(record.kept) if record.kept else []
    return Lineage(rows), origins


@dataclass(frozen=True)
class Chains:
    """The synthetic rows of a training set: how many, and the chains of some."""

    count: int
    shown: list[list[Ancestor]]


def chains(record: IterationRecord, lineage: Lineage, most: int, seed: int) -> Chains:
    """The chains of the synthetic rows that an iteration trained on, of more than `most` a random choice."""
    synthetic = [row for row in read_examples(record.train) if row.origin == "synthetic"]
    return Chains(len(synthetic), [lineage.chain(row) for row in choose(synthetic, most, seed)])
