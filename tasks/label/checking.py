"""The labels of rows that a teacher wrote, asked for anew: does it still find what it meant to write?"""

from pydantic import Field

from tasks.augment.teacher import Teacher
from tasks.core.config import Config
from tasks.core.references import DatasetRef
from tasks.core.run import Run
from tasks.label.config import LabellingConfig
from tasks.label.stage import STAGE, LabelInputs
from tasks.problems.base import ProblemConfig


class LabelCheckConfig(Config):
    """Let the teacher label its own rows, not seeing what they were meant to be; those it labels otherwise go."""

    on: bool = False
    """Check the labels, many rows in one prompt (BatchPrompt, arXiv 2309.00384)."""
    labelling: LabellingConfig = LabellingConfig(batch_size=16, rounds=3)
    """How the teacher is asked."""
    demonstrations: int = Field(0, ge=0, le=100)
    """Seed rows that it is shown with their labels."""


def relabel(
    run: Run,
    config: LabelCheckConfig,
    teacher: Teacher,
    problem: ProblemConfig,
    candidates: DatasetRef,
    shown: DatasetRef | None,
    attempt: int,
) -> DatasetRef | None:
    """The candidates with the labels of the teacher's vote, `value` below 1 where these are not their own; None where
    no check is made."""
    if not config.on or not candidates.rows:
        return None
    asked = LabelInputs(
        teacher=teacher,
        rows=candidates,
        demonstrations=shown,
        shown=config.demonstrations,
        problem=problem,
        known=True,
    )
    again = f" (attempt {attempt + 1})" if attempt else ""
    return run.stage(STAGE, config.labelling, asked, label=f"check labels{again}").rows
