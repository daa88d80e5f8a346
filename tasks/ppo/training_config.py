"""All that decides how a policy is trained on rewards, as one configuration."""

from pydantic import Field

from tasks.core.config import PLACEMENT, Config
from tasks.ppo import config as ppo
from tasks.ppo import roles_config, rollout_config, sharding
from tasks.ppo.config import PPOConfig
from tasks.ppo.group_config import GroupConfig, check_group
from tasks.ppo.roles_config import RolesConfig
from tasks.ppo.rollout_config import RolloutConfig
from tasks.rewards.config import RewardConfig


class PolicyTrainingConfig(Config):
    """How a policy is trained on rewards."""

    ppo: PPOConfig = PPOConfig()
    """The optimisation."""
    group: GroupConfig = GroupConfig()
    """`ppo.algorithm: rloo` or `grpo`: the groups of responses that are compared."""
    roles: RolesConfig = RolesConfig()
    """Who plays policy, value, reward and reference."""
    rollouts: RolloutConfig = RolloutConfig()
    """What samples responses."""
    reward: RewardConfig = RewardConfig()
    """What a response is worth."""
    checkpoint_steps: int = Field(10, ge=1, json_schema_extra=PLACEMENT)
    """A killed training goes on from a checkpoint at most this many steps old."""


def check(config: PolicyTrainingConfig, *, processes: int = 1) -> None:
    """Raise UserError for settings that contradict each other, or that so many processes cannot follow, before anything
    is loaded. The flow's fields have the names of `config`'s."""
    roles_config.check(config.roles)
    ppo.check(config.ppo, processes=processes)
    sharding.check(config.ppo, config.roles, processes)
    rollout_config.check(config.rollouts, config.ppo, config.roles, processes)
    check_group(config.ppo, config.group)
