"""Stage: a teacher writes instruction data from seeds and texts, within a budget."""

from collections import Counter
from pathlib import Path

from pydantic import BaseModel, Field

from tasks.augment.teacher import Teacher
from tasks.core.examples import Example, read_examples, write_rows
from tasks.core.generators.base import Usage
from tasks.core.generators.load import load_generator
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage
from tasks.grow.diversity import distinct_n
from tasks.instruct.checks import Checks
from tasks.instruct.config import WritingConfig
from tasks.instruct.data import InstructData
from tasks.instruct.spending import Spending
from tasks.instruct.writing import Writer


class WritingInputs(BaseModel):
    """Who writes from what."""

    teacher: Teacher
    data: InstructData


class OperationFigures(BaseModel):
    """What an operation brought: requests, instructions written, rows kept, and rejections by reason."""

    operation: str
    asked: int = 0
    written: int = 0
    kept: int = 0
    rejected: dict[str, int] = Field(default_factory=dict)

    @property
    def kept_share(self) -> float:
        """Rows kept of the instructions that were written."""
        return self.kept / self.written if self.written else 0.0


class RoundFigures(BaseModel):
    """A round in figures; calls and tokens are those up to its end."""

    kept: int
    rejected: int
    calls: int
    tokens: int

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        return {
            "data/kept": float(self.kept),
            "data/rejected": float(self.rejected),
            "teacher/calls": float(self.calls),
            "teacher/tokens": float(self.tokens),
        }


class WritingResult(BaseModel):
    """The new rows with where each comes from, the same in chat format, and what they took."""

    rows: DatasetRef
    chats: DatasetRef
    operations: list[OperationFigures]
    rounds: list[RoundFigures]
    usage: Usage
    money: float
    stopped: str
    distinct_2: float
    seeds_distinct_2: float

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        return {
            "data/kept": float(self.rows.rows),
            "data/generated": float(sum(one.written for one in self.operations)),
            "teacher/calls": float(self.usage.calls),
            "teacher/tokens": float(self.usage.prompt_tokens + self.usage.completion_tokens),
            "teacher/money": self.money,
            "instruct/distinct_2": self.distinct_2,
            "instruct/seeds_distinct_2": self.seeds_distinct_2,
        } | {f"instruct/kept/{one.operation}": float(one.kept) for one in self.operations}


def run(config: WritingConfig, inputs: WritingInputs, out: Path, report: Report) -> WritingResult:
    """Write until there are enough rows or the budget ends; a round that a killed attempt finished is read again."""
    data = inputs.data
    seeds = read_examples(data.seeds)
    texts = read_examples(data.texts) if data.texts else []
    test = read_examples(data.test) if data.test else []
    generator = load_generator(inputs.teacher.engine, inputs.teacher.weights, field="teacher.engine")
    spending = Spending(generator, config.budget, Usage(), at_once=_at_once(inputs.teacher))
    writer = Writer(config, seeds, texts, Checks(config, seeds, test), spending)

    def watch(kept: int, wanted: int) -> None:
        report({"progress": [kept, wanted], "text": "rows kept"})

    stopped = writer.write(out / "rounds", watch)
    rows = writer.written
    return WritingResult(
        rows=write_rows(out / "rows.jsonl", rows),
        chats=write_rows(out / "chats.jsonl", map(chat, rows)),
        operations=_operations([one.counts for one in writer.rounds]),
        rounds=[
            RoundFigures(
                kept=len(one.kept),
                rejected=sum(_rejected(count) for count in one.counts.values()),
                calls=one.usage.calls,
                tokens=one.usage.prompt_tokens + one.usage.completion_tokens,
            )
            for one in writer.rounds
        ],
        usage=spending.usage,
        money=spending.money,
        stopped=stopped,
        distinct_2=distinct_n([row.input for row in rows], 2),
        seeds_distinct_2=distinct_n([row.input for row in seeds], 2),
    )


def chat(row: Example) -> dict[str, object]:
    """A row in the chat format that trainers take, with its origin beside it."""
    messages = [{"role": "user", "content": row.input}, {"role": "assistant", "content": row.target}]
    return {
        "messages": messages,
        "id": row.id,
        "operation": row.facts["operation"],
        "parents": row.facts["parents"],
    }


def _at_once(teacher: Teacher) -> int:
    """Prompts between two looks at the budget: what the engine works on at once."""
    engine = teacher.engine
    return engine.endpoint.concurrency if engine.engine == "openai" else engine.batch_size


_NO_REJECTION = ("asked", "written", "kept")


def _rejected(count: dict[str, int]) -> int:
    return sum(number for reason, number in count.items() if reason not in _NO_REJECTION)


def _operations(rounds: list[dict[str, dict[str, int]]]) -> list[OperationFigures]:
    total: dict[str, Counter[str]] = {}
    for counts in rounds:
        for operation, count in counts.items():
            total.setdefault(operation, Counter()).update(count)
    return [
        OperationFigures(
            operation=operation,
            **{name: count[name] for name in _NO_REJECTION},
            rejected={
                reason: number for reason, number in sorted(count.items()) if reason not in _NO_REJECTION
            },
        )
        for operation, count in sorted(total.items())
    ]


STAGE = Stage(
    "instruct",
    run,
    WritingConfig,
    WritingInputs,
    WritingResult,
    own_process=True,
    loads_model=lambda config, inputs: inputs.teacher.engine.loads_model,
)
