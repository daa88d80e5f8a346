"""Contamination: a training row that says what a test row says makes the measurement worthless."""

from collections.abc import Iterable

from tasks.core.examples import Example
from tasks.filter.duplicates import exact_index, normalise
from tasks.filter.rouge import RougeIndex


class HeldOut:
    """The inputs of the test set, which no training row may repeat."""

    def __init__(self, examples: Iterable[Example], threshold: float) -> None:
        """`threshold`: ROUGE-L F1 above which an input counts as repeated; 1 leaves equal ones only."""
        examples = list(examples)
        self._exact = exact_index(examples)
        self._near = RougeIndex(threshold)
        for example in examples:
            self._near.add(example.id, example.input)

    def find(self, text: str) -> tuple[str, float | None] | None:
        """Id of a test row that `text` repeats, with their ROUGE-L F1 (None: equal once normalised)."""
        if (id := self._exact.get(normalise(text))) is not None:
            return id, None
        return self._near.find(text)
