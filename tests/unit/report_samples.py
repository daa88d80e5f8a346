"""A loop over a policy's own samples, on disk, for the report's tests: every figure can be counted by hand."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.examples import Example, make_example, make_sample, write_rows
from tasks.core.references import ModelRef
from tasks.improve.figures import SampleFigures, Selection, histogram
from tasks.improve.keeping import prompt_of
from tasks.report.records import IterationRecord
from tests.unit.report_loop import LABELS, answers, held_out, split

QUESTIONS = [make_example(f"question {number}", LABELS[number % 2]) for number in range(4)]
REWARDS = (0.0, 0.5, 0.9)
"""Of the three samples of every question."""


def draw(step: int, questions: Sequence[Example] = tuple(QUESTIONS)) -> list[Example]:
    """Three samples of each question."""
    return [
        make_sample(question, f"answer {letter} of iteration {step}", step=step, reward=reward)
        for question in questions
        for letter, reward in zip("abc", REWARDS, strict=True)
    ]


def figures(rows: Sequence[Example], **known: Any) -> SampleFigures:
    """The figures of rows; diversity and length as told."""
    rewards = [row.reward or 0.0 for row in rows]
    prompts = Counter(prompt_of(row) for row in rows)
    counted = {
        "rows": len(rows),
        "samples": len(rows),
        "prompts": len(prompts),
        "reward": sum(rewards) / len(rewards) if rewards else 0.0,
        "histogram": histogram(rewards),
        "per_prompt": dict(Counter(prompts.values())),
    }
    alike = {"distinct_1": 0.4, "distinct_2": 0.6, "self_similarity": 0.25, "words": 5.0}
    return SampleFigures(**counted | alike | {"words_deviation": 1.5} | known)


def select(rows: Sequence[Example], level: float, before: dict[str, Any], **known: Any) -> Selection:
    """The step that keeps what is rewarded above `level`."""
    kept = [row for row in rows if (row.reward or 0.0) > level]
    asked = len({prompt_of(row) for row in rows})
    counts = {"asked": asked, "rejected": {"low": len(rows) - len(kept)}, "taken": bool(kept)}
    after = figures(kept, distinct_2=0.8, words=4.0)
    return Selection(**{"level": level, "before": figures(rows, **before), "after": after} | counts | known)


def sampled_loop(
    folder: Path,
    right: Sequence[Sequence[bool]],
    *,
    levels: Sequence[float] = (0.2, 0.7),
    metrics: Sequence[dict[str, float]] = (),
    before: Sequence[dict[str, Any]] = (),
) -> list[IterationRecord]:
    """Iterations with a step per level, the last of which is trained on; `right` tells which test rows each one answers
    right, `metrics` are further ones and `before` figures of its samples."""
    records = []
    for number, verdicts in enumerate(right, start=1):
        place = folder / f"iteration-{number}"
        samples = draw(number)
        known = before[number - 1] if before else {}
        selections = [select(samples, level, known, reward=0.5 + level / 10) for level in levels]
        kept = write_rows(place / "kept.jsonl", [row for row in samples if (row.reward or 0.0) > levels[-1]])
        predictions = answers(held_out(len(verdicts)), verdicts)
        record = IterationRecord(
            number=number,
            metrics={"data/wrong": 0.0, "data/generated": 12.0, "data/kept": float(kept.rows)}
            | {"train/steps": 10.0, "train/loss": 1.25, "reward/mean": 7 / 15}
            | (metrics[number - 1] if metrics else {}),
            model=ModelRef(uri=f"models/{number}", digest=str(number)),
            train=kept,
            kept=kept,
            splits={"test": split(place / "test-answers.jsonl", predictions)},
            selections=selections,
        )
        records.append(record)
    return records
