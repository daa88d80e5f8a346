"""What samples a policy's responses while it is trained."""

from importlib.util import find_spec
from typing import Literal

from pydantic import Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError
from tasks.core.generators.vllm import LORA_RANKS
from tasks.ppo.config import PPOConfig
from tasks.ppo.group_config import GROUP_RELATIVE
from tasks.ppo.roles_config import RolesConfig


class RolloutConfig(Config):
    """What samples responses."""

    engine: Literal["policy", "vllm"] = "policy"
    """The very model that is trained, or vLLM beside it: faster on a GPU, for a second copy of the base, which gets the
    policy's adapter anew in every step."""
    memory: float = Field(0.3, gt=0.0, le=0.95, json_schema_extra=PLACEMENT)
    """Share of the GPU that vLLM takes for its copy of the base and its key-value cache; the rest is left to the
    training."""


def check(config: RolloutConfig, ppo: PPOConfig, roles: RolesConfig, processes: int) -> None:
    """Raise UserError where vLLM is asked for and cannot follow or is not there, before anything is loaded."""
    check_followed(config, ppo, roles, processes)
    if config.engine == "vllm" and find_spec("vllm") is None:
        raise UserError(
            "vLLM is not installed",
            field="rollouts.engine",
            mend="pip install 'loopwright[vllm]', or set it to policy",
        )


def check_followed(config: RolloutConfig, ppo: PPOConfig, roles: RolesConfig, processes: int) -> None:
    """Raise UserError where vLLM is asked for and cannot follow these settings, wherever they run."""
    if config.engine != "vllm":
        return
    refused = {
        "the trainers of rloo and grpo sample themselves": ppo.algorithm in GROUP_RELATIVE,
        "vLLM takes the policy's adapter, and full models have none": roles.method == "full",
        "vLLM's copy would not have the policy's 4-bit weights": roles.method == "qlora",
        f"vLLM takes adapters up to rank {LORA_RANKS[-1]}": roles.adapter.rank > LORA_RANKS[-1],
        f"{processes} processes would each start a vLLM": processes > 1,
    }
    for reason in (reason for reason, applies in refused.items() if applies):
        raise UserError(reason, field="rollouts.engine", mend="set it to policy")
