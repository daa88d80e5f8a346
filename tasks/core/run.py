"""What a loop needs of the run it belongs to."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from pydantic import BaseModel

from tasks.core.config import Config
from tasks.core.references import DatasetRef
from tasks.core.stage import Stage

C = TypeVar("C", bound=Config)
I = TypeVar("I", bound=BaseModel)  # noqa: E741 - config, inputs, result
R = TypeVar("R", bound=BaseModel)


class Run(Protocol):
    """How stages are run, and where the figures go."""

    iteration: int

    def stage(
        self, stage: Stage[C, I, R], config: C, inputs: I, *, label: str = "", training: bool = False
    ) -> R:
        """The stage's result, computed or found."""
        ...

    def stages(
        self,
        stage: Stage[C, I, R],
        config: C,
        inputs: Sequence[I],
        *,
        labels: Sequence[str],
        whole: str = "",
        at_once: int = 1,
        each: Callable[[int, R], None] | None = None,
    ) -> list[R]:
        """The results for several inputs, in their order, at most `at_once` of them under way; `whole` names them all.

        `each` is called with the number of an input, from 0, and its result when that is there. What it raises, and
        what a stage raises, ends those under way.
        """
        ...

    def has(self, stage: Stage[C, I, R], config: C, inputs: I) -> bool:
        """Whether the result is there and need not be computed."""
        ...

    def iterate(self, number: int) -> AbstractContextManager[dict[str, float]]:
        """One iteration; the mapping takes its metrics."""
        ...

    def dataset(self, ref: DatasetRef, context: str) -> None:
        """Record that the run uses a data set."""
        ...
