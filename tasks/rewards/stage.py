"""Stage: what every answer is worth, each scored once."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.examples import Example, read_examples, read_records, write_rows
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Report, Stage
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem
from tasks.rewards.config import RewardConfig
from tasks.rewards.judging import broken, judge, scores_right_answers


class ScoreInputs(BaseModel):
    """The answers, and what is needed to score them."""

    rows: DatasetRef
    """Samples; a row without a completion is scored by its own right answer."""
    problem: ProblemConfig
    reward_model: ModelRef | None = None
    """For `by: model`."""
    known: list[DatasetRef] = Field(default_factory=list)
    """Rows that the same configuration scored before: theirs is taken over by a row of the same id."""
    code: str = ""
    """Digest of the user's function (`function_code`)."""


class ScoreResult(BaseModel):
    """The rows with their rewards, in order."""

    rows: DatasetRef
    scored: int
    """Different answers scored now."""
    reused: int
    """Rows whose reward was known."""
    failed: dict[str, int]
    """Answers worth 0 because the verifier failed: `timed_out`, `crashed`, or `invalid` (no number from 0 to 1)."""
    mean: float
    """Over all rows; 0 for none."""
    reason: str = ""
    """Of the last failure."""
    constant: bool = False
    """The reward model gave different answers one and the same reward: it has learned nothing."""

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        return {"reward/mean": self.mean, "reward/failed": float(sum(self.failed.values()))}


def run(config: RewardConfig, inputs: ScoreInputs, out: Path, report: Report) -> ScoreResult:
    """Score the rows and write them to `out`/scored.jsonl.

    Raises UserError when the verifier failed on every answer, and, where it is the problem, on a right one: it is
    broken, and the policy need not be bad.
    """
    rows = read_examples(inputs.rows)
    known = _known(inputs.known)
    new = {row.id: row for row in rows if row.id not in known}

    def progress(done: int, total: int) -> None:
        report({"progress": [done, total], "text": "scored"})

    problem = load_problem(inputs.problem)
    judgements = judge(config, problem, inputs.reward_model, list(new.values()), progress)
    failed = [judgement for judgement in judgements if judgement.failure]
    reused = sum(row.id in known for row in rows)
    all_failed = bool(failed) and len(failed) == len(new) and not reused
    if all_failed and not scores_right_answers(config, problem, rows[0]):
        raise broken(config, inputs.problem.name, len(failed), failed[-1].reason)
    rewards = known | {row_id: judgement.reward for row_id, judgement in zip(new, judgements, strict=True)}
    scored = [row.model_copy(update={"reward": rewards[row.id]}) for row in rows]
    return ScoreResult(
        rows=write_rows(out / "scored.jsonl", scored),
        scored=len(new),
        reused=reused,
        failed=dict(sorted(Counter(judgement.failure for judgement in failed).items())),
        mean=sum(rewards[row.id] for row in rows) / len(rows) if rows else 0.0,
        reason=failed[-1].reason if failed else "",
        constant=config.by == "model" and _constant(scored),
    )


def _known(references: Iterable[DatasetRef]) -> dict[str, float]:
    return {
        record["id"]: record["reward"]
        for reference in references
        for record in read_records(reference)
        if record.get("reward") is not None
    }


def _constant(rows: Sequence[Example]) -> bool:
    return len({row.id for row in rows}) > 1 and len({row.reward for row in rows}) == 1


def loads_model(config: RewardConfig, inputs: ScoreInputs) -> bool:
    """Whether the reward is a model's, and that model is here."""
    return config.by == "model"


STAGE = Stage("score", run, RewardConfig, ScoreInputs, ScoreResult, own_process=True, loads_model=loads_model)
