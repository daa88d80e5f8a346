"""Ask the teacher and filter, until every failed row has its new rows or the attempts are used up."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tasks.augment.config import AugmentConfig
from tasks.augment.requests import AugmentInputs, wanted
from tasks.augment.stage import STAGE
from tasks.augment.teacher import Teacher
from tasks.core.examples import read_examples
from tasks.core.generators.base import Usage
from tasks.core.references import DatasetRef, ModelRef
from tasks.filter import stage as filter_stage
from tasks.filter.rules import FilterConfig
from tasks.filter.stage import FilterInputs
from tasks.judges import judge
from tasks.label.checking import LabelCheckConfig, relabel
from tasks.student import Student

NO_CHECK = LabelCheckConfig()


class Augmented(BaseModel):
    """What an iteration's augmentation brought, over all its attempts."""

    kept: DatasetRef | None = None
    generated: int = 0
    counts: dict[str, int] = {}
    """Candidates kept, and rejected by reason."""
    shortfall: int = 0
    """Rows that were wanted and did not come."""
    usage: Usage = Usage()
    exchanges: list[DatasetRef] = []
    rejected: list[DatasetRef] = []

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        rejected = {
            f"filter/{reason}": float(count) for reason, count in self.counts.items() if reason != "kept"
        }
        return rejected | {
            "data/generated": float(self.generated),
            "data/kept": float(self.kept.rows if self.kept else 0),
            "data/shortfall": float(self.shortfall),
            "teacher/calls": float(self.usage.calls),
            "teacher/tokens": float(self.usage.prompt_tokens + self.usage.completion_tokens),
            "teacher/tokens_saved": float(self.usage.saved_tokens),
        }

    def parts(self) -> dict[str, Any]:
        """The fields an iteration's record takes over."""
        return {name: getattr(self, name) for name in ("exchanges", "kept", "rejected", "counts")}


@dataclass(frozen=True)
class Augmentation:
    """Who writes, who judges, and by which rules rows are kept: the same in every iteration of a loop.

    `pool` holds rows that a teacher may be shown, `test` the rows that no kept row may repeat.
    """

    student: Student
    config: AugmentConfig
    rules: FilterConfig
    teacher: Teacher
    pool: DatasetRef
    test: DatasetRef
    judges: Sequence[ModelRef] = ()
    labels: LabelCheckConfig = NO_CHECK

    def until_kept(self, parents: DatasetRef, train: DatasetRef) -> Augmented:
        """New rows from each of `parents`, filtered against the training data so far.

        The published loop with a bound: what is missing after `config.attempts` is reported, not awaited.
        """
        run, problem = self.student.run, self.student.problem
        total = Augmented()
        if not parents.rows:
            return total
        kept: DatasetRef | None = None
        counts: Counter[str] = Counter()
        for attempt in range(self.config.attempts):
            written = run.stage(
                STAGE,
                self.config,
                AugmentInputs(
                    teacher=self.teacher,
                    problem=problem,
                    parents=parents,
                    pool=self.pool,
                    kept=kept,
                    step=run.iteration,
                    attempt=attempt,
                ),
                label=f"augment (attempt {attempt + 1})" if attempt else "augment",
            )
            judgements = judge(self.student, self.judges, written.candidates, attempt)
            labels = relabel(run, self.labels, self.teacher, problem, written.candidates, self.pool, attempt)
            filtered = run.stage(
                filter_stage.STAGE,
                self.rules,
                FilterInputs(
                    candidates=written.candidates,
                    wrong=parents,
                    kept=kept,
                    known=train,
                    test=self.test,
                    problem=problem,
                    judgements=judgements,
                    labels=labels,
                    limit=self.config.rows,
                ),
                label=f"filter (attempt {attempt + 1})" if attempt else "filter",
            )
            kept = filtered.kept
            counts.update(filtered.counts)
            if written.failed_evolutions:
                counts["failed_evolution"] += written.failed_evolutions
            usage = {
                name: getattr(total.usage, name) + getattr(written.usage, name) for name in Usage.model_fields
            }
            shortfall = sum(wanted(read_examples(parents), read_examples(kept), self.config.rows).values())
            total = Augmented(
                kept=kept,
                generated=total.generated + written.candidates.rows,
                counts=dict(counts),
                shortfall=shortfall,
                usage=Usage(**usage),
                exchanges=[*total.exchanges, written.exchanges],
                rejected=[*total.rejected, filtered.rejected],
            )
            if not shortfall:
                break
        return total
