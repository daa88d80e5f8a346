"""Stage: label rows with batched prompts, or try settings out on rows whose labels are known."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from tasks.augment.teacher import Teacher
from tasks.core.examples import Example, read_examples, write_rows
from tasks.core.generators.base import Prompt, Usage
from tasks.core.generators.load import load_generator
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage
from tasks.data.subset import shuffled
from tasks.evaluate import bootstrap_interval
from tasks.label.accounting import Cost, cost_of
from tasks.label.config import LabellingConfig
from tasks.label.prompting import single_prompt
from tasks.label.rounds import Counting, Labeller, Round, ballots_of
from tasks.label.voting import agreement, vote
from tasks.problems.base import Problem, ProblemConfig
from tasks.problems.load import load_problem
from tasks.problems.scoring import score_answer


class LabelInputs(BaseModel):
    """Who labels what."""

    teacher: Teacher
    rows: DatasetRef
    demonstrations: DatasetRef | None = None
    shown: int | None = None
    """How many of the demonstrations are shown, at random; all by default."""
    problem: ProblemConfig
    known: bool = False
    """Whether the rows have their right answers, to be counted right or wrong."""


class LabelledRow(BaseModel):
    """A row and what was decided on it. `answer` is null when no round had a readable one; `agreement` is the share of
    its rounds that gave the answer; `value` its score where the right answer is known."""

    id: str
    input: str
    target: str = ""
    answer: str | None
    agreement: float
    rounds: int
    confident: int
    value: float | None = None


class RoundFigures(BaseModel):
    """A round in figures: rows asked for, confident ones among the readable, answers that the vote changed, faults."""

    asked: int
    answered: int
    confident: int
    changed: int
    right: float | None
    counts: dict[str, int]
    usage: Usage = Usage()

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        figures = {
            f"label/{name}": float(getattr(self, name))
            for name in ("asked", "answered", "confident", "changed")
        }
        figures |= {f"label/{name}": float(count) for name, count in self.counts.items()}
        return figures | ({} if self.right is None else {"eval/accuracy": self.right})


class LabelResult(BaseModel):
    """The labelled rows, the rounds and the cost; `accuracy` with its interval where the right answers are known."""

    rows: DatasetRef
    answered: int
    rounds: list[RoundFigures]
    cost: Cost
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        figures = self.cost.metrics() | {
            "label/rows": float(self.rows.rows),
            "label/labelled": float(self.answered),
        }
        if self.accuracy is not None and self.low is not None and self.high is not None:
            figures |= {
                "eval/accuracy": self.accuracy,
                "eval/accuracy_low": self.low,
                "eval/accuracy_high": self.high,
            }
        return figures


def run(config: LabellingConfig, inputs: LabelInputs, out: Path, report: Report) -> LabelResult:
    """Label all rows; a round that a killed attempt finished is read and not asked again."""
    problem, rows = load_problem(inputs.problem), read_examples(inputs.rows)
    shown = read_examples(inputs.demonstrations) if inputs.demonstrations else []
    if inputs.shown is not None:
        shown = shuffled(shown, config.seed)[: inputs.shown]
    generator = load_generator(inputs.teacher.engine, inputs.teacher.weights, field="teacher.engine")
    count, own_context = counting(inputs.teacher)
    context = min(filter(None, (config.context, own_context)), default=0)
    labeller = Labeller(generator, problem, config, count, context, shown)

    def watch(number: int, done: int, total: int) -> None:
        report({"progress": [done, total], "text": f"round {number}: answered"})

    rounds = labeller.label(rows, out / "rounds", watch)
    decided = [_decide(config, problem, row, rounds, place, inputs.known) for place, row in enumerate(rows)]
    single = sum(count(single_prompt(problem, row, shown)) for row in rows)
    values = [row.value for row in decided if row.value is not None]
    low, high = bootstrap_interval(values, 0.95, 2000, config.seed)
    known = {"accuracy": sum(values) / len(values), "low": low, "high": high} if values else {}
    return LabelResult(
        rows=write_rows(out / "labels.jsonl", [row.model_dump(mode="json") for row in decided]),
        answered=sum(row.answer is not None for row in decided),
        rounds=figures_of(config, problem, rows, rounds, known=inputs.known),
        cost=cost_of(rounds, rows=len(rows), single_tokens=single),
        **known,
    )


def counting(teacher: Teacher) -> tuple[Counting, int]:
    """How the tokens of a prompt are counted, and the model's context in tokens, 0 where it is not known.

    Of a server's model the tokenizer is not known: half the bytes and a few for every turn, which is on the safe side
    for text in an alphabet.
    """
    if teacher.weights is None:
        return _estimate, 0
    from transformers import AutoConfig

    from tasks.core.models import load_tokenizer, render
    from tasks.core.store import fetch

    tokenizer = load_tokenizer(teacher.weights)
    text = AutoConfig.from_pretrained(fetch(teacher.weights)).get_text_config(decoder=True)
    return lambda prompt: len(render(tokenizer, prompt)), int(
        getattr(text, "max_position_embeddings", 0) or 0
    )


def _estimate(prompt: Prompt) -> int:
    return sum(len(message["content"].encode()) // 2 + 8 for message in prompt)


def _decide(
    config: LabellingConfig, problem: Problem, row: Example, rounds: Sequence[Round], place: int, known: bool
) -> LabelledRow:
    ballots = ballots_of(rounds, place)
    answer = vote(ballots, config.vote, config.unsure_weight)
    return LabelledRow(
        id=row.id,
        input=row.input,
        target=row.target,
        answer=answer,
        agreement=agreement(ballots, answer),
        rounds=len(ballots),
        confident=sum(ballot is not None and ballot.confident for ballot in ballots),
        value=value_of(problem, row, answer) if known else None,
    )


def value_of(problem: Problem, row: Example, answer: str | None) -> float:
    """The score of a decided answer; none is wrong."""
    return 0.0 if answer is None else score_answer(problem, row, answer).value


def figures_of(
    config: LabellingConfig,
    problem: Problem,
    rows: Sequence[Example],
    rounds: Sequence[Round],
    *,
    known: bool,
) -> list[RoundFigures]:
    """Every round in figures, the vote over all rounds up to it included."""
    figures: list[RoundFigures] = []
    before: list[str | None] = [None] * len(rows)
    for number, one in enumerate(rounds, start=1):
        now = [
            vote(ballots_of(rounds[:number], place), config.vote, config.unsure_weight)
            for place in range(len(rows))
        ]
        read = [ballot for ballot in one.ballots.values() if ballot is not None]
        right = [value_of(problem, row, answer) for row, answer in zip(rows, now, strict=True)]
        figures.append(
            RoundFigures(
                asked=len(one.ballots),
                answered=len(read),
                confident=sum(ballot.confident for ballot in read),
                changed=sum(old != new for old, new in zip(before, now, strict=True)) if number > 1 else 0,
                right=sum(right) / len(right) if known else None,
                counts=one.counts,
                usage=one.usage,
            )
        )
        before = now
    return figures


STAGE = Stage(
    "label",
    run,
    LabellingConfig,
    LabelInputs,
    LabelResult,
    own_process=True,
    loads_model=lambda config, inputs: inputs.teacher.engine.loads_model,
)
