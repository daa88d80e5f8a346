"""One reward for a whole loop: of samples, of training rows, and of the answers to a held-out set."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.core.config import Config
from tasks.core.flow_run import Run
from tasks.core.references import DatasetRef, ModelRef
from tasks.problems.base import ProblemConfig
from tasks.rewards import answers, stage
from tasks.rewards.answers import AnswersInputs
from tasks.rewards.config import RewardConfig, function_code
from tasks.rewards.stage import ScoreInputs, ScoreResult


@dataclass(frozen=True)
class Scoring:
    """What rewards answers: a problem's own score, a function of the user's, or a reward model.

    An answer that came before, in whatever iteration or data set, keeps the reward that it had; but for the problem's
    own score, which is given faster than looked up.
    """

    run: Run
    config: RewardConfig
    problem: ProblemConfig
    reward_model: ModelRef | None = None
    scored: list[DatasetRef] = field(default_factory=list)
    """What was scored so far, in order."""
    judged: dict[str, ScoreResult] = field(default_factory=dict)
    """The results so far, by the digests of their rows."""

    def cautions(self) -> list[str]:
        """What a reader of the results should know of the verifier: that it failed, on how many answers, and why."""
        failing = [result for result in self.judged.values() if result.failed]
        if not failing:
            return []
        failed = sum(sum(result.failed.values()) for result in failing)
        scored = sum(result.scored for result in self.judged.values())
        return [
            f"The verifier failed on {failed:,} of {scored:,} answers, at last because {failing[-1].reason}. "
            "They count as worth nothing, which may be the verifier’s fault and not the policy’s."
        ]

    def score(
        self, rows: DatasetRef, *, known: Sequence[DatasetRef] = (), label: str = "score"
    ) -> ScoreResult:
        """The rows with their rewards; a row that stands in one of `known` keeps the reward it has there."""
        result = self.run.stage(stage.STAGE, self.config, self._inputs(rows, known), label=label)
        self._remember(result)
        return result

    def score_each(
        self,
        rows: Sequence[DatasetRef],
        known: Sequence[Sequence[DatasetRef]],
        *,
        labels: Sequence[str],
        at_once: int = 1,
    ) -> list[ScoreResult]:
        """`score` for several data sets that do not hang on one another, each with the `known` of its own."""
        inputs = [self._inputs(*one) for one in zip(rows, known, strict=True)]
        results = self.run.stages(stage.STAGE, self.config, inputs, labels=labels, at_once=at_once)
        self._remember(*results)
        return results

    def of_answers(self, predictions: DatasetRef, questions: DatasetRef, *, label: str) -> ScoreResult:
        """The rewards of a student's answers, as an evaluation kept them, to `questions`."""
        inputs = AnswersInputs(predictions=predictions, questions=questions)
        samples = self.run.stage(answers.STAGE, Config(), inputs, label=f"{label}: answers").samples
        return self.score(samples, label=label)

    def _remember(self, *results: ScoreResult) -> None:
        for result in results:
            self.judged.setdefault(result.rows.digest, result)
        if self.config.by != "problem":
            scored = [result.rows for result in results]
            self.scored.extend(ref for ref in scored if ref.rows and ref not in self.scored)

    def _inputs(self, rows: DatasetRef, known: Sequence[DatasetRef]) -> ScoreInputs:
        return ScoreInputs(
            rows=rows,
            problem=self.problem,
            reward_model=self.reward_model,
            known=[*self.scored, *(ref for ref in known if ref not in self.scored)],
            code=function_code(self.config),
        )
