"""Memory of a policy's training beside the vLLM that samples for it."""

from dataclasses import replace

from tasks.plan.architecture import Architecture
from tasks.plan.memory import Memory
from tasks.ppo.rollout_config import RolloutConfig


def beside_vllm(
    training: Memory, rollouts: RolloutConfig, shape: Architecture, number: int, *, length: int
) -> Memory:
    """`training` with what vLLM takes: a share of the device, which has to hold the base and the keys and values of one
    response with its prompt, `length` tokens; what the training needs has to fit into the rest."""
    if rollouts.engine != "vllm":
        return training
    base = float(number * shape.parameters())
    least = base + 2 * number * shape.layers * shape.kv_width * length
    whole = max(training.total / (1 - rollouts.memory), least / rollouts.memory)
    beside = whole - training.total
    return replace(
        training.at(training.moment, weights=base, cache=beside - base), most_kept=training.lasting + beside
    )
