"""Memory of the stages that TRL trains: supervised fine-tuning, and reward models."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.plan.activations import FLOAT32, Training, activations, backward_workspace
from tasks.plan.architecture import Architecture
from tasks.plan.memory import Machine, Memory, Trained, fullest, weight_bytes
from tasks.reward_model.config import RewardTrainingConfig
from tasks.sft.config import TrainingConfig
from tasks.sft.optimiser_config import OptimiserConfig

TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
"""The tile of logits in which TRL computes log-probabilities, never more of them."""
_COPIES_OF_A_TILE = 7
"""Without Triton the gradient of a tile passes through so many tensors of its size in float32."""
_LIVE = 10**9
"""Parameters that ZeRO-3 gathers at most (`stage3_max_live_parameters`)."""


def fine_tuning(shape: Architecture, config: TrainingConfig, machine: Machine) -> Memory:
    """Supervised fine-tuning at its fullest moment, with a batch of rows of `max_length` tokens."""
    number = machine.bytes_of(config.precision)
    tokens = config.batch_size * config.max_length
    tile_tokens = min(tokens, TILE_TOKENS)
    # The states to predict from, their gradient in float32 and in their own format, and the tile's buffer.
    logits = tokens * shape.hidden * (number + FLOAT32 + number) + tile_tokens * TILE_VOCABULARY * number
    if not machine.fused:
        logits += tile_tokens * min(shape.vocabulary, TILE_VOCABULARY) * FLOAT32 * _COPIES_OF_A_TILE
    if config.method == "full":
        logits += shape.vocabulary * shape.hidden * (FLOAT32 + (number if number < FLOAT32 else 0))
    return _training(
        shape,
        "training",
        config,
        machine,
        shape.parameters(),
        config.batch_size,
        logits,
        _zero(config.deepspeed),
    )


def reward_training(shape: Architecture, config: RewardTrainingConfig, machine: Machine) -> Memory:
    """Training of a reward model at its fullest moment: a batch has two answers for each of its pairs."""
    # A head of one number; beside an adapter a copy of it is what trains.
    parameters = shape.body_parameters() + shape.hidden
    return _training(shape, "reward_model", config, machine, parameters, 2 * config.batch_size, 0.0, {})


def _training(
    shape: Architecture,
    part: str,
    config: OptimiserConfig,
    machine: Machine,
    parameters: int,
    rows: int,
    logits: float,
    zero: dict[str, Any],
) -> Memory:
    number, four_bit = machine.bytes_of(config.precision), config.method == "qlora"
    weights = weight_bytes(shape, parameters, number, four_bit=four_bit)
    if four_bit:
        weights += number * max(linear.inputs * linear.outputs for linear in shape.linears())  # one in use
    if config.method == "full":
        trained, training = Trained(parameters, number), Training(number)
        static = Memory(weights=weights)
    else:
        adapted = shape.adapted(config.adapter, field=f"{part}.adapter.modules")
        size = shape.adapter_parameters(config.adapter.rank, adapted)
        # PEFT keeps adapters in float32; TRL makes those on 4-bit weights bfloat16.
        trained = Trained(size, number if four_bit else FLOAT32)
        autocast = number < FLOAT32 and not four_bit
        training = Training(number, adapted, config.adapter.rank, copies="autocast" if autocast else "shared")
        static = Memory(weights=weights, adapters=size * (trained.number + (number if autocast else 0)))
    static, trained_bytes = _placed(static, trained, machine, zero, parameters)
    kept = activations(
        shape,
        training,
        rows=rows,
        length=config.max_length,
        checkpointing=config.gradient_checkpointing,
    )
    workspace = rows * config.max_length * backward_workspace(shape, training)
    accumulated = trained_bytes if config.gradient_accumulation > 1 else 0.0
    return fullest(
        [
            static.at("the backward pass begins", activations=kept, gradients=accumulated),
            static.at(
                "logits and their gradient",
                activations=kept - workspace,
                logits=logits,
                gradients=accumulated,
            ),
            static.at("the optimizer steps", activations=workspace, gradients=trained_bytes),
        ]
    )


def _placed(
    static: Memory, trained: Trained, machine: Machine, zero: dict[str, Any], parameters: int
) -> tuple[Memory, float]:
    """The memory that lasts on one of the machine's devices, with the optimizer's, and the bytes of the gradients.

    ZeRO (arXiv 1910.02054) shares among all devices the optimizer's state from stage 1 on, gradients from stage 2 on,
    weights from stage 3 on; its state holds float32 copies of the weights that are trained.
    """
    devices, stage = machine.processes, int(zero.get("stage", 0))
    if not stage:
        buckets = trained.size if devices > 1 else 0.0  # in which DDP sends gradients
        return replace(static, optimizer=trained.moments), trained.size + buckets
    optimizer = 0.0 if _away(zero, "offload_optimizer") else 3 * FLOAT32 * trained.parameters / devices
    gradients = trained.size / (devices if stage >= 2 else 1)
    if stage >= 3:
        own = 0.0 if _away(zero, "offload_param") else static.weights / devices
        gathered = static.weights * min(1.0, _LIVE / parameters)
        static = replace(static, weights=own + gathered)
    return replace(static, optimizer=optimizer), gradients


def _away(zero: dict[str, Any], part: str) -> bool:
    return dict(zero.get(part) or {}).get("device", "none") != "none"


def _zero(file: str) -> dict[str, Any]:
    """The part of a DeepSpeed configuration that says what is shared; empty without a file, whose absence the flow
    reports."""
    if not file or not Path(file).is_file():
        return {}
    return dict(json.loads(Path(file).read_text(encoding="utf-8")).get("zero_optimization") or {})
