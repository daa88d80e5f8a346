"""What a loop hands to its report: one record per iteration."""

from pydantic import BaseModel, Field

from tasks.core.references import DatasetRef, ModelRef
from tasks.evaluate import SplitResult
from tasks.improve.figures import Selection
from tasks.ppo.stage import PolicyTrainingResult
from tasks.report.compare import Comparison
from tasks.reward_model.stage import RewardTrainingResult
from tasks.side_by_side.stage import SideBySideResult


class PolicyRecord(BaseModel):
    """A policy trained on rewards by reinforcement learning, and how it does on held-out prompts."""

    trained: PolicyTrainingResult
    """Its training, step by step."""
    compared: SideBySideResult
    """Its answers beside those of the policy that it started from."""
    reward_model: RewardTrainingResult | None = None
    """Where the reward was learned from preferences."""
    judge: RewardTrainingResult | None = None
    """Another one, which the training never met and which says who wins."""


class IterationRecord(BaseModel):
    """An iteration: its figures, and the data sets behind them."""

    number: int
    metrics: dict[str, float]
    """By the names used in MLflow (`eval/accuracy`, `data/kept`)."""
    model: ModelRef
    train: DatasetRef
    """The examples it trained on."""
    splits: dict[str, SplitResult]
    """Results on "test" and "train", with every prediction."""
    failures: DatasetRef | None = None
    """The examples new rows were written from."""
    exchanges: list[DatasetRef] = Field(default_factory=list)
    """Requests to the teacher and its answers: parent, prompt (messages), text, finish, error, rows."""
    kept: DatasetRef | None = None
    rejected: list[DatasetRef] = Field(default_factory=list)
    """Rows of tasks.filter.rules.Rejection."""
    counts: dict[str, int] = Field(default_factory=dict)
    """Candidates kept, and rejected by reason."""
    selections: list[Selection] = Field(default_factory=list)
    """What was trained on of a policy's own samples, an Improve step each."""
    policy: PolicyRecord | None = None
    """The training of this iteration, where it was reinforcement learning."""

    @property
    def trained_on(self) -> DatasetRef | None:
        """The rows that this iteration trained on; None when it took no Improve step, and `train` are the rows behind
        the policy that it left as it was."""
        return self.kept if self.selections else self.train


class LoopRecord(BaseModel):
    """A whole loop: its iterations, what they are compared with, why it ended early ("" when it did not), what a reader
    should know of its data, and what rewarded its samples, where that was learned."""

    iterations: list[IterationRecord] = Field(default_factory=list)
    comparisons: list[Comparison] = Field(default_factory=list)
    stopped: str = ""
    cautions: list[str] = Field(default_factory=list)
    reward_model: RewardTrainingResult | None = None
