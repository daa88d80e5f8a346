"""A reward learned from preferences, as the flows that need one get it: read the pairs, then train on them."""

from dataclasses import dataclass

from tasks import base_model
from tasks.base_model import ModelConfig
from tasks.core.errors import UserError
from tasks.core.flow_run import Run
from tasks.core.references import ModelRef
from tasks.reward_model import preferences, stage
from tasks.reward_model.config import PreferenceConfig, RewardTrainingConfig
from tasks.reward_model.preferences import PreparedPreferences
from tasks.reward_model.ready import is_adapter, ready_model
from tasks.reward_model.stage import RewardTrainingInputs, RewardTrainingResult
from tasks.rewards import config as rewards
from tasks.rewards.config import RewardConfig
from tasks.sft.config import check_processes


def check_learned(
    model: ModelConfig, pairs: PreferenceConfig, training: RewardTrainingConfig, processes: int
) -> None:
    """Raise UserError for all that can be known to be wrong before a model is loaded."""
    preferences.check(pairs)
    check_processes(training, processes, field="reward_model")
    base_model.locate(model, "reward_base.model")


def check_reward(
    reward: RewardConfig,
    model: ModelConfig,
    pairs: PreferenceConfig,
    training: RewardTrainingConfig,
    processes: int,
) -> None:
    """Raise UserError for all that can be known to be wrong of a reward, learned here or not, before a model is
    loaded."""
    rewards.check(reward)
    check_needed(pairs, reward)
    if reward.by == "model" and not reward.model:
        check_learned(model, pairs, training, processes)


def check_needed(pairs: PreferenceConfig, reward: RewardConfig, *, judge: bool = False) -> None:
    """Raise UserError for pairs that nothing would learn from: neither the reward model nor a judge."""
    if reward.by == "model" and (judge or not reward.model):
        return
    for field, address in (("preferences.train", pairs.train), ("preferences.test", pairs.test)):
        if address:
            raise UserError(
                f"{address} is named, but rewards come by {reward.model or reward.by}",
                field=field,
                mend="leave the pairs out, or set reward.by to model, and reward.model to nothing",
            )


@dataclass(frozen=True)
class Learned:
    """What was learned from preferences: the reward to train on, and a judge that training never meets."""

    rewarding: RewardTrainingResult | None = None
    judging: RewardTrainingResult | None = None
    pairs: PreparedPreferences | None = None
    ready: ModelRef | None = None
    """The reward model that was there already."""

    @property
    def reward(self) -> ModelRef | None:
        """The reward model."""
        return self.rewarding.model if self.rewarding else self.ready

    @property
    def judge(self) -> ModelRef | None:
        """The judge."""
        return self.judging.model if self.judging else None

    def metrics(self) -> dict[str, float]:
        """How often each prefers the answer that people preferred, on pairs that it did not learn from, with the ends
        of the interval."""
        found = {"reward_model": self.rewarding, "judge": self.judging}
        return {
            f"{name}/{figure}": getattr(result.held_out, figure.replace("accuracy_", ""))
            for name, result in found.items()
            if result is not None and result.held_out is not None
            for figure in ("accuracy", "accuracy_low", "accuracy_high", "calibration_error")
        }

    def cautions(self) -> list[str]:
        """What a reader of the results should know of the pairs."""
        found = self.pairs.cautions() if self.pairs else []
        found += self.rewarding.cautions("reward model") if self.rewarding else []
        return found + (self.judging.cautions("judge") if self.judging else [])


def learn_reward(
    run: Run,
    reward: RewardConfig,
    model: ModelConfig,
    pairs: PreferenceConfig,
    training: RewardTrainingConfig,
) -> Learned:
    """The reward model trained from `model` on the pairs, and tested on those that are held out, or the one that is
    there already (`reward.model`). Nothing is learned where no model rewards."""
    if reward.by != "model":
        return Learned()
    if reward.model:
        on_base = is_adapter(reward.model)
        return Learned(ready=ready_model(reward.model, _base(run, model) if on_base else None))
    prepared = run.stage(preferences.STAGE, pairs, preferences.inputs(pairs), label="preferences")
    run.dataset(prepared.train, "preferences")
    inputs = RewardTrainingInputs(model=_base(run, model), train=prepared.train, test=prepared.test)
    trained = run.stage(stage.STAGE, training, inputs, label="reward model", training=True)
    return Learned(trained, pairs=prepared)


def check_pairs(
    pairs: PreferenceConfig, training: RewardTrainingConfig, processes: int, *, judge: bool
) -> None:
    """Raise UserError for pairs that cannot be read, when none are held out for a judge to learn from, and for a
    training that so many processes cannot share."""
    preferences.check(pairs)
    check_processes(training, processes, field="reward_model")
    if judge and not pairs.test and not pairs.test_fraction:
        raise UserError(
            "the judge learns from held-out pairs, and none are held out",
            field="preferences.test_fraction",
            mend="hold out a third of the pairs, give preferences.test, or set judge to false",
        )


def learn_rewards(
    run: Run,
    reward: RewardConfig,
    base: ModelRef,
    pairs: PreferenceConfig,
    training: RewardTrainingConfig,
    judge: bool,
) -> Learned:
    """A reward model on `base` (full weights) from the training pairs and, if asked for, a judge from those held out.
    Each is tested on the pairs of the other. Nothing is learned where no model rewards; beside a reward model that is
    there already (`reward.model`) only the judge is, if pairs are given."""
    if reward.by != "model":
        return Learned()
    ready = ready_model(reward.model, base) if reward.model else None
    if ready is not None and not (judge and pairs.train):
        return Learned(ready=ready)
    prepared = run.stage(preferences.STAGE, pairs, preferences.inputs(pairs), label="preferences")
    run.dataset(prepared.train, "preferences")
    inputs = RewardTrainingInputs(model=base, train=prepared.train, test=prepared.test)
    rewarding = None
    if ready is None:
        rewarding = run.stage(stage.STAGE, training, inputs, label="reward model", training=True)
    if not judge or prepared.test is None:
        return Learned(rewarding, pairs=prepared, ready=ready)
    inputs = RewardTrainingInputs(model=base, train=prepared.test, test=prepared.train)
    judging = run.stage(stage.STAGE, training, inputs, label="judge", training=True)
    return Learned(rewarding, judging, prepared, ready)


def _base(run: Run, model: ModelConfig) -> ModelRef:
    files = base_model.locate(model, "reward_base.model")
    return run.stage(base_model.STAGE, model, files, label="reward model (base)").model
