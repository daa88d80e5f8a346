"""A data set cut into shards, in order, and a stage's call cut into calls on them whose results are put together."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.examples import read_lines, write_lines
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage

C = TypeVar("C", bound=Config)
I = TypeVar("I", bound=BaseModel)  # noqa: E741 - config, inputs, result
R = TypeVar("R", bound=BaseModel)


class Cutter(Protocol):
    """Cuts data sets."""

    @property
    def rows(self) -> int:
        """Most rows of a shard."""
        ...

    def __call__(self, ref: DatasetRef) -> list[DatasetRef]:
        """The shards of a data set, in order; itself where it is no larger than one."""
        ...


@dataclass(frozen=True)
class Sharding(Generic[C, I, R]):
    """How a call of a stage is cut into parts, whose results put together are exactly its own."""

    cut: Callable[[C, I, Cutter], Sequence[I]]
    """The inputs of the parts, in order; fewer than two leave the call whole."""
    join: Callable[[C, I, Sequence[R], Path], R]
    """The whole result out of the parts' results; files go beneath the path."""


class ShardsConfig(Config):
    """How large a shard is."""

    rows: int = Field(256, ge=1)
    """Rows per shard."""


class ShardsInputs(BaseModel):
    """The data set to be cut."""

    rows: DatasetRef


class ShardsResult(BaseModel):
    """The shards, in the order of their rows."""

    shards: list[DatasetRef]


def run(config: ShardsConfig, inputs: ShardsInputs, out: Path, report: Report) -> ShardsResult:
    """Cut the rows as they stand."""
    return ShardsResult(shards=write_shards(out, "shard", read_lines(inputs.rows), config.rows))


def write_shards(out: Path, name: str, lines: Iterable[bytes], rows: int) -> list[DatasetRef]:
    """Write lines as `row_line` makes them to files of `rows` each: `out`/NAME-1.jsonl and so on."""
    waiting = iter(lines)
    shards: list[DatasetRef] = []
    while part := list(islice(waiting, rows)):
        shards.append(write_lines(out / f"{name}-{len(shards) + 1}.jsonl", part))
    return shards


STAGE = Stage("cut", run, ShardsConfig, ShardsInputs, ShardsResult)
