"""How a policy is optimised by RLOO or GRPO, which compare several responses to one prompt."""

from typing import Literal

from pydantic import Field

from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.ppo.config import PPOConfig

GROUP_RELATIVE = ("rloo", "grpo")
"""The algorithms without a value function: a response is measured by the other ones to its prompt."""


class GroupConfig(Config):
    """How RLOO and GRPO, which compare the responses to one prompt, learn; other algorithms do not look at it.

    Of `ppo` they take steps, batches, lengths, learning rate, `clip`, `kl_coefficient`, penalty and seed. A step is one
    optimizer step over the whole batch (`iterations` of them); what concerns values has no meaning. RLOO takes the KL
    off the reward, GRPO adds it to the loss of every token. Without a `kl_coefficient` there is no reference, and
    neither KL nor `kl_alarm`.
    """

    responses: int = Field(8, ge=2, le=1024)
    """Responses to each prompt; `ppo.batch_size` is a multiple. RLOO's paper takes 2 or 4, GRPO's 64."""
    iterations: int = Field(1, ge=1, le=100)
    """Optimizer steps on a batch; more than one need `ppo.clip`."""
    scale_rewards: Literal["auto", "group", "batch", "none"] = "auto"
    """Divide advantages by the standard deviation of the rewards to one prompt (`auto` for GRPO), by that of a batch,
    or leave them (`auto` for RLOO; for GRPO that is Dr. GRPO's way)."""
    loss: Literal["grpo", "dapo", "dr_grpo", "cispo"] = "grpo"
    """GRPO's mean over tokens: over those of a response, then over responses (the paper's, which favours short right
    and long wrong ones); over all of a batch (DAPO); per `ppo.max_new_tokens` (Dr. GRPO); or over all of a batch, with
    clipped weights in the place of clipped losses (CISPO, MiniMax-M1)."""
    ratio: Literal["token", "sequence"] = "token"
    """GRPO's probability ratios: of each token, or their mean over the response (GSPO). RLOO's are of the response."""
    clip_high: float = Field(0.0, ge=0.0, le=100.0)
    """Ratios have no more effect above 1 + this; 0 takes `ppo.clip`. DAPO has 0.28, and CISPO clips at this itself."""
    mask_cut: bool = False
    """Learn nothing from responses that were cut at `ppo.max_new_tokens` (DAPO); they still count for the others."""


def check_group(config: PPOConfig, group: GroupConfig, *, field: str = "ppo", own: str = "group") -> None:
    """Raise UserError for settings that RLOO and GRPO cannot follow; any other algorithm passes. `field` and `own` are
    where `config` and `group` stand in the flow's configuration."""
    algorithm = config.algorithm
    if algorithm not in GROUP_RELATIVE:
        return
    if config.batch_size % group.responses:
        raise UserError(
            f"a batch of {config.batch_size} cannot be made of {group.responses} responses to each prompt",
            field=f"{own}.responses",
            mend=f"set it to a divisor of {field}.batch_size, or that to a multiple of {group.responses}",
        )
    meaningless: dict[str, tuple[str | float, str]] = {
        "kl_controller": ("fixed", "its coefficient is the same all along"),
        "normalise_scores": ("none", "it compares scores within a group, and needs no scale of them"),
        "gamma": (1.0, "a response is one action"),
        "deepspeed": ("", "it trains without DeepSpeed"),
    }
    if algorithm == "rloo":
        meaningless["entropy_coefficient"] = (0.0, "it has no entropy bonus")
    for name, (neutral, why) in meaningless.items():
        if getattr(config, name) != neutral:
            raise UserError(
                f"{algorithm} cannot follow it: {why}",
                field=f"{field}.{name}",
                mend=f"set it to {neutral}" if neutral != "" else "leave it out",
            )
    if algorithm == "rloo":
        _check_rloo(group, own)
    elif group.loss == "cispo" and not group.clip_high:
        raise UserError(
            "CISPO clips the ratios themselves, not their distance from 1",
            field=f"{own}.clip_high",
            mend="set it above 1; its authors take 5",
        )


def _check_rloo(group: GroupConfig, own: str) -> None:
    for name in ("loss", "ratio"):
        if getattr(group, name) != GroupConfig.model_fields[name].default:
            raise UserError(f"rloo has no choice of {name}", field=f"{own}.{name}", mend="leave it out")
    if group.scale_rewards == "group":
        raise UserError(
            "rloo does not divide by the standard deviation of a group",
            field=f"{own}.scale_rewards",
            mend="choose batch or none, or take grpo",
        )
