"""Students that trained on the seed rows alone judge what a teacher wrote: how likely do they find its answer?

A small teacher strays from the class it was asked for. Judges have not seen its rows, and differ in their random
choices, so that a row they agree on is rarely one of the strays.
"""

from collections.abc import Sequence

from pydantic import Field

from tasks.core.config import Config
from tasks.core.references import DatasetRef, ModelRef
from tasks.label.checking import LabelCheckConfig
from tasks.label.config import check as check_labelling
from tasks.student import Student


class JudgesConfig(Config):
    """Who judges the rows a teacher wrote."""

    students: int = Field(0, ge=0, le=20)
    """Judging students, each trained on the seed rows with a seed of its own; 0 judges nothing."""
    steps: int = Field(0, ge=0)
    """Optimizer steps of each; 0 takes those of the student's training."""
    labels: LabelCheckConfig = LabelCheckConfig()
    """The teacher itself as judge: it labels its rows anew."""


def check_judges(config: JudgesConfig) -> None:
    """Raise UserError for settings that cannot be."""
    if config.labels.on:
        check_labelling(config.labels.labelling, "judges.labels.labelling")


def train_judges(config: JudgesConfig, student: Student, seed_rows: DatasetRef) -> list[ModelRef]:
    """The judges. Their seeds follow the student's, so that none is the student itself."""
    first = student.training.seed + 1
    return [
        student.train(
            seed_rows, steps=config.steps, seed=seed, label=f"train (judge {seed - first + 1})"
        ).model
        for seed in range(first, first + config.students)
    ]


def judge(
    student: Student, judges: Sequence[ModelRef], candidates: DatasetRef, attempt: int
) -> list[DatasetRef]:
    """Every judge's predictions on the candidates, with the log-probability of the answer each came with."""
    if not candidates.rows:
        return []
    again = f", attempt {attempt + 1}" if attempt else ""
    return [
        student.test(judge, {"candidates": candidates}, likelihood=True, label=f"judge {number}{again}")[
            "candidates"
        ].predictions
        for number, judge in enumerate(judges, start=1)
    ]
