"""A reward learned from preferences, as the flows that need one get it: read the pairs, then train on them."""

from tasks import base_model
from tasks.base_model import ModelConfig
from tasks.core.flow_run import Run
from tasks.reward_model import preferences, stage
from tasks.reward_model.config import PreferenceConfig, RewardTrainingConfig
from tasks.reward_model.stage import RewardTrainingInputs, RewardTrainingResult


def check_learned(model: ModelConfig, pairs: PreferenceConfig) -> None:
    """Raise UserError for all that can be known to be wrong before a model is loaded."""
    preferences.check(pairs)
    base_model.locate(model, "reward_base.model")


def learn_reward(
    run: Run, model: ModelConfig, pairs: PreferenceConfig, training: RewardTrainingConfig
) -> RewardTrainingResult:
    """The reward model trained from `model` on the pairs, and its figures on those that are held out."""
    prepared = run.stage(preferences.STAGE, pairs, preferences.inputs(pairs), label="preferences")
    run.dataset(prepared.train, "preferences")
    files = base_model.locate(model, "reward_base.model")
    base = run.stage(base_model.STAGE, model, files, label="reward model (base)").model
    inputs = RewardTrainingInputs(model=base, train=prepared.train, test=prepared.test)
    return run.stage(stage.STAGE, training, inputs, label="reward model", training=True)
