"""Which settings of its trainings a flow accepts from so many processes, so that no others are advised."""

from typing import Any

from tasks.core.errors import UserError
from tasks.core.launching.fsdp import asks_for_fsdp
from tasks.ppo import config as ppo_config
from tasks.ppo import sharding
from tasks.ppo.group_config import check_group
from tasks.ppo.rollout_config import check_followed
from tasks.sft.config import check_beside_fsdp, check_sharing

TRAININGS = {"fine-tune": "training", "reward": "reward_model", "ppo": "ppo"}
"""Stages that several devices share, by kind, and where their settings stand."""


def shared_parts(config: Any) -> list[str]:
    """Where the trainings of a flow have their settings."""
    parts = [part for part in TRAININGS.values() if hasattr(config, part)]
    if not hasattr(config, "reward") or config.reward.by != "model":
        parts = [part for part in parts if part != "reward_model"]
    return parts


def check_fsdp(config: Any, processes: int) -> None:
    """Raise UserError where the processes are launched for FSDP and a training of the flow cannot be shared so. A
    policy's cannot by several processes: it shares by ZeRO alone."""
    if not asks_for_fsdp(config.launch.launcher, config.launch.config_file):
        return
    for part in shared_parts(config):
        if part != "ppo":
            check_beside_fsdp(getattr(config, part), field=part)
        elif processes > 1:
            raise UserError(
                "the processes are launched for FSDP, by which a policy's training is not shared",
                field="launch.config_file",
                mend="take launcher auto without the file, and ppo.deepspeed=zero3 (and training.deepspeed=zero3)",
            )


def check_trainings(config: Any, processes: int) -> None:
    """Raise UserError for trainings that the flow itself would refuse to share among so many processes."""
    check_fsdp(config, processes)
    for part in shared_parts(config):
        if part != "ppo":
            check_sharing(getattr(config, part), processes, field=part)
            continue
        ppo_config.check_processes(config.ppo, processes)
        sharding.check(config.ppo, config.roles, processes)
        check_followed(config.rollouts, config.ppo, config.roles, processes)
        check_group(config.ppo, config.group)


def is_accepted(config: Any, processes: int) -> bool:
    """Whether `check_trainings` lets them pass."""
    try:
        check_trainings(config, processes)
    except UserError:
        return False
    return True
