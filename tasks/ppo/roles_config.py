"""Who plays the four roles of RLHF, policy, value, reward and reference, and what of them is trained."""

from typing import Literal

from pydantic import Field

from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.core.models import Precision, check_four_bit
from tasks.sft.adapter import AdapterConfig

_OUTPUT_LAYERS = {"lm_head", "embed_out"}
"""What decoders of transformers call theirs."""


class RolesConfig(Config):
    """What plays the roles of policy, value, reward and reference."""

    method: Literal["lora", "qlora", "full"] = "lora"
    """One frozen base with an adapter for each role (PERL), the same with a base of 4-bit weights (needs bitsandbytes),
    or a full model for each, for comparison."""
    adapter: AdapterConfig = AdapterConfig()
    """The policy's adapter, for `lora`. PERL trains the attention projections (`q_proj,k_proj,v_proj,o_proj`)."""
    value: Literal["adapter", "trunk", "model"] = "adapter"
    """The value function: an adapter and a head of its own on the base, only a head on the policy's hidden states
    (fastest), or a full model of its own. For `full`, `adapter` means `model`."""
    trunk_gradient: bool = True
    """With `trunk`: the value loss moves the policy's adapter too; without, the head alone."""
    value_adapter: AdapterConfig | None = None
    """The value function's adapter; empty takes the settings of the policy's."""
    precision: Precision = "auto"
    """Number format of the weights; auto is bfloat16 on GPUs that have it, else float32. Adapters and heads are
    float32; models that are trained whole are held in float32 and multiplied in this format."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the adapters' initial weights."""


def check(config: RolesConfig, *, field: str = "roles") -> None:
    """Raise UserError for settings that contradict each other, before anything is loaded. `field` is where `config`
    stands in the flow's configuration."""
    if config.method == "qlora":
        check_four_bit(field=f"{field}.method")
    for name in ("adapter", "value_adapter"):
        adapter: AdapterConfig | None = getattr(config, name)
        if adapter is not None and adapter.dropout:
            raise UserError(
                "the policy that is trained would not be the one that sampled: PPO compares the two without dropout",
                field=f"{field}.{name}.dropout",
                mend="set it to 0",
            )
        on_head = _OUTPUT_LAYERS & _modules(adapter) if adapter is not None else set()
        if on_head and config.method != "full":
            raise UserError(
                "an adapter on the output layer would not be trained: all roles have that layer in common",
                field=f"{field}.{name}.modules",
                mend=f"leave {min(on_head)} out",
            )
    if config.value_adapter is not None and (config.value != "adapter" or config.method == "full"):
        raise UserError(
            "the value function has no adapter",
            field=f"{field}.value_adapter",
            mend="leave it out, or set value to adapter and method to lora",
        )


def _modules(adapter: AdapterConfig) -> set[str]:
    """The last parts of the paths of the modules that an adapter is put on."""
    return {name.strip().rpartition(".")[2] for name in adapter.modules.split(",")}
