"""Memory of PPO: one frozen base with adapters for its roles, or models of their own."""

from dataclasses import dataclass, field, replace
from typing import Literal

from tasks.plan.activations import (
    FLOAT32,
    Training,
    activations,
    backward_workspace,
    forward_workspace,
    mask_of_layer,
)
from tasks.plan.architecture import Architecture, Linear
from tasks.plan.generating import writing
from tasks.plan.memory import Machine, Memory, Trained, copied, fullest, weight_bytes
from tasks.plan.sharing import placed, rows_of_device, zero_section
from tasks.ppo.config import PPOConfig
from tasks.ppo.heads import ROWS
from tasks.ppo.log_probabilities import CHUNK
from tasks.ppo.roles_config import RolesConfig
from tasks.sft.adapter import AdapterConfig

SAMPLED = 32
"""Responses that are written together."""
_COPIES_OF_A_CHUNK = 4
"""Tensors of a chunk's logits in float32 at once: scores, probabilities, what is made of them."""
_COPIES_OF_LOGITS = 4
"""The same where the output layer is trained, and all logits of a micro batch are kept."""


@dataclass(frozen=True)
class Reward:
    """Who rewards responses: nothing in memory (a verifier), an adapter on the base, or a model of its own."""

    by: Literal["verifier", "adapter", "model"]
    adapter: AdapterConfig = field(default_factory=AdapterConfig)


def policy_training(
    shape: Architecture,
    ppo: PPOConfig,
    roles: RolesConfig,
    reward: Reward,
    machine: Machine,
    *,
    prompt: int,
) -> Memory:
    """PPO at its fullest moment, with prompts of `prompt` tokens and responses of the greatest length."""
    number = machine.bytes_of(roles.precision)
    lora, four_bit, value = roles.method != "full", roles.method == "qlora", roles.value
    if not lora and value == "adapter":
        value = "model"
    body = shape.body_parameters()
    weights, adapters = weight_bytes(shape, shape.parameters(), number, four_bit=four_bit), 0.0
    if four_bit:
        weights += number * max(linear.inputs * linear.outputs for linear in shape.linears())  # one in use
    copies = 0.0  # of the policy's weights, in which autocast computes
    if lora:
        policy, policy_pass = _adapter(shape, roles.adapter, number, "roles.adapter.modules")
        adapters += policy.size
    else:
        policy, policy_pass = _whole(shape.parameters(), number)
        weights = policy.size + number * shape.parameters()  # with the reference
        copies = copied(shape, number, shape.vocabulary * shape.hidden)
    values, value_pass = Trained(0, number), policy_pass  # a head on the policy's trunk
    if value == "model":
        values, value_pass = _whole(body, number)
        weights += values.size
    elif value == "adapter":
        own = roles.value_adapter or roles.adapter
        values, value_pass = _adapter(shape, own, number, "roles.value_adapter.modules")
        adapters += values.size
    rewarding: tuple[Linear, ...] = ()
    if reward.by == "model":
        weights += number * body
    elif reward.by == "adapter":
        rewarding = shape.adapted(reward.adapter, field="reward_model.adapter.modules")
        adapters += FLOAT32 * shape.adapter_parameters(reward.adapter.rank, rewarding)
    both = (policy, values)
    zero = zero_section(ppo.deepspeed, field="ppo.deepspeed")
    whole = Memory(weights=weights, adapters=adapters)
    shares = [placed(whole, part, machine, zero, shape.parameters()) for part in both]
    static = replace(shares[0][0], optimizer=sum(one.optimizer for one, _ in shares))
    # Without ZeRO gradients are averaged where they lie.
    gradients = sum(size for _, size in shares) if zero else sum(part.size for part in both)
    # ZeRO-3 gathers all weights to sample, beside the parts that a device keeps.
    kept_beside = weights / machine.processes if int(zero.get("stage", 0)) >= 3 else 0.0
    sampling = replace(static, weights=weights + kept_beside + copies)

    share = rows_of_device(ppo.batch_size, machine)
    length = prompt + ppo.max_new_tokens
    micro = min(ppo.micro_batch_size, share)
    read = min(ROWS, share)
    moments = [
        writing(
            shape,
            sampling,
            number if lora else (FLOAT32 + number) // 2,  # autocast: keys in float32, values in 16 bits
            rows=min(SAMPLED, share),
            prompt=prompt,
            new=ppo.max_new_tokens,
            adapted=policy_pass.adapted or (),
        )
    ]
    if reward.by != "verifier":
        reading = read * (length + 1) * forward_workspace(shape, number, rewarding)
        reading += mask_of_layer(number + 1, read, length + 1)
        moments.append(static.at("responses are rewarded", activations=reading))
    learnt = micro * ppo.max_new_tokens
    # The states that responses are predicted from, as they are and as gradients in float32.
    states = (
        learnt * shape.hidden * (policy_pass.between_layers + FLOAT32 * (2 if ppo.entropy_coefficient else 1))
    )
    logits = learnt * shape.vocabulary * FLOAT32
    chunk = min(logits, CHUNK * FLOAT32) * _COPIES_OF_A_CHUNK if lora else logits * _COPIES_OF_LOGITS
    for name, one in (("policy", policy_pass), ("value function", value_pass)):
        kept = activations(shape, one, rows=micro, length=length, checkpointing=roles.gradient_checkpointing)
        beside = copies if one is policy_pass else copied(shape, number) if value == "model" else 0.0
        learning = static.at(f"the {name} learns", gradients=gradients, weights=beside)
        moments.append(learning.at(learning.moment, activations=kept, logits=states))
        if name == "policy":
            without = kept - micro * length * backward_workspace(shape, one)
            moments.append(learning.at("logits of responses", activations=without, logits=states + chunk))
    # On a GPU AdamW computes a step of all parameters at once, which takes one more number for each.
    moments.append(
        static.at("the optimizer steps", gradients=gradients, optimizer=gradients if machine.fused else 0.0)
    )
    return fullest(moments)


def _whole(parameters: int, number: int) -> tuple[Trained, Training]:
    """Weights that are all trained, in float32, and what layers keep for it."""
    return Trained(parameters, FLOAT32), Training(number, copies="autocast" if number < FLOAT32 else "shared")


def _adapter(shape: Architecture, config: AdapterConfig, number: int, where: str) -> tuple[Trained, Training]:
    """An adapter in float32, and what layers keep for it."""
    adapted = shape.adapted(config, field=where)
    size = shape.adapter_parameters(config.rank, adapted)
    copies: Literal["shared", "float32"] = "shared" if number == FLOAT32 else "float32"
    return Trained(size, FLOAT32), Training(number, adapted, config.rank, copies)
