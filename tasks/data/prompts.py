"""Stage: the questions that a policy is asked while it learns; those that it will be tested on are left out.

A verified answer to a test question, trained on, would make the test say nothing. Two sets of generated rows share
questions more often than one thinks: of sums of two numbers of two digits there are 16,200.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.errors import UserError
from tasks.core.examples import Example, content_id, read_examples, write_rows
from tasks.core.references import DatasetRef
from tasks.core.run import Run
from tasks.core.stage import Report, Stage
from tasks.data import preparing
from tasks.data.config import DataConfig
from tasks.data.preparing import PreparedData, content_of
from tasks.data.sound_rows import cautions, fitting, read_cells
from tasks.data.subset import shuffled
from tasks.problems.base import Problem, ProblemConfig
from tasks.problems.load import load_problem

FIELD = "prompts"


class PromptInputs(BaseModel):
    """What the address holds, the problem, and the rows whose questions nobody may learn from."""

    rows: str
    answered: bool
    """Whether every row needs a right answer, since that is what an answer is rewarded by."""
    problem: ProblemConfig
    held_out: list[DatasetRef]
    trained: DatasetRef | None = None
    """The training rows, where their questions are asked; nothing is read from an address then."""


class PreparedPrompts(BaseModel):
    """The rows whose questions are asked."""

    prompts: DatasetRef
    duplicates: int
    held_out: int
    """Questions that were left out because a test or validation row asks the same."""
    left_out: dict[str, int] = Field(default_factory=dict)
    """Rows that were left out for what they are, by reason."""

    def cautions(self) -> list[str]:
        """What a reader of the results should know."""
        found = cautions(self.left_out, "Prompts")
        if self.held_out:
            total = self.prompts.rows + self.held_out
            found.append(
                f"{self.held_out} of {total} prompts were left out: test or validation rows ask the same."
            )
        return found


def check(config: DataConfig, address: str, *, answered: bool) -> None:
    """Raise UserError for all that preparing the data, or the prompts at `address` (the training rows where it is
    empty), would refuse. Writes nothing."""
    chosen = preparing.check(config, address)
    held_out = [*chosen.test, *chosen.validation]
    if address:
        problem = load_problem(chosen.problem)
        _apart(_read(config.asking(address), problem, answered, Counter()), held_out)
    elif not chosen.problem.labels:
        _apart(chosen.train, held_out)


def ask(run: Run, config: DataConfig, address: str, data: PreparedData, *, answered: bool) -> PreparedPrompts:
    """The prompts at `address`, or the training rows where it is empty: the very ones, unless a held-out row asks the
    same as one of them. Those of a classification are asked whatever is held out."""
    if address:
        asked = config.asking(address)
        return run.stage(STAGE, asked, inputs(asked, data, answered=answered))
    held_out = _held_out(data)
    if data.problem.labels or _questions([data.train]).isdisjoint(_questions(held_out)):
        return PreparedPrompts(prompts=data.train, duplicates=0, held_out=0)
    facts = {"answered": answered, "problem": data.problem, "held_out": held_out, "trained": data.train}
    return run.stage(STAGE, config, PromptInputs(rows=data.train.digest, **facts))


def inputs(config: DataConfig, data: PreparedData, *, answered: bool) -> PromptInputs:
    """What the stage's cache key depends on beside its configuration. Raises UserError as reading does."""
    content = content_of(config, "train", field=FIELD, answered=answered)
    return PromptInputs(rows=content, answered=answered, problem=data.problem, held_out=_held_out(data))


def _held_out(data: PreparedData) -> list[DatasetRef]:
    return [data.test, *([data.validation] if data.validation else [])]


def choose(config: DataConfig, inputs: PromptInputs, out: Path, report: Report) -> PreparedPrompts:
    """Write prompts.jsonl, in an order that the seed decides, whatever the file's is. Raises UserError for rows that
    the problem cannot ask, and when every question is held out."""
    left_out: Counter[str] = Counter()
    if inputs.trained:
        rows = read_examples(inputs.trained)
    else:
        rows = _read(config, load_problem(inputs.problem), inputs.answered, left_out)
    unique = list({row.id: row for row in rows}.values())
    held_out = [row for ref in inputs.held_out for row in read_examples(ref)]
    kept = _apart(unique, held_out)
    return PreparedPrompts(
        prompts=write_rows(out / "prompts.jsonl", shuffled(kept, config.seed)),
        duplicates=len(rows) - len(unique),
        held_out=len(unique) - len(kept),
        left_out=dict(left_out),
    )


def _read(config: DataConfig, problem: Problem, answered: bool, left_out: Counter[str]) -> list[Example]:
    located = read_cells(config, "train", left_out, field=FIELD, answered=answered)
    return [row for _, row in fitting(config, problem, located, FIELD, left_out, answered=answered)]


def _apart(rows: Iterable[Example], held_out: Iterable[Example]) -> list[Example]:
    asked = {question_of(row) for row in held_out}
    kept = [row for row in rows if question_of(row) not in asked]
    if not kept:
        raise UserError(
            "every question is that of a test or validation row",
            field=FIELD,
            mend="give other prompts; where it is empty, the training rows' questions are asked",
        )
    return kept


def _questions(sets: Iterable[DatasetRef]) -> set[str]:
    return {question_of(row) for ref in sets for row in read_examples(ref)}


def question_of(row: Example) -> str:
    """What two rows, as their problem adapts them, share that ask the same."""
    return content_id(row.input, "", row.choices)


STAGE = Stage("prompts", choose, DataConfig, PromptInputs, PreparedPrompts)
