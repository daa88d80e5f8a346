"""Memory of the stages that TRL trains: supervised fine-tuning, and reward models."""

from tasks.plan.activations import FLOAT32, Training, activations, backward_workspace
from tasks.plan.architecture import Architecture
from tasks.plan.memory import Machine, Memory, Trained, copied, fullest, weight_bytes
from tasks.plan.sharing import fully_sharded, placed, rows_of_device, zero_section
from tasks.reward_model.config import RewardTrainingConfig
from tasks.sft.config import TrainingConfig
from tasks.sft.optimiser_config import OptimiserConfig

TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
"""The tile of logits in which TRL computes log-probabilities, never more of them."""
_COPIES_OF_A_TILE = 7
"""Without Triton the gradient of a tile passes through so many tensors of its size in float32."""


def fine_tuning(shape: Architecture, config: TrainingConfig, machine: Machine) -> Memory:
    """Supervised fine-tuning at its fullest moment, with a device's share of a batch of rows of `max_length` tokens."""
    number = machine.bytes_of(config.precision)
    rows = rows_of_device(config.batch_size, machine)
    tokens = rows * config.max_length
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
        rows,
        logits,
    )


def reward_training(shape: Architecture, config: RewardTrainingConfig, machine: Machine) -> Memory:
    """Training of a reward model at its fullest moment: a batch has two answers for each of its pairs."""
    # A head of one number; beside an adapter a copy of it is what trains.
    parameters = shape.body_parameters() + shape.hidden
    rows = 2 * rows_of_device(config.batch_size, machine)
    return _training(shape, "reward_model", config, machine, parameters, rows, 0.0)


def _training(
    shape: Architecture,
    part: str,
    config: OptimiserConfig,
    machine: Machine,
    parameters: int,
    rows: int,
    logits: float,
) -> Memory:
    number, four_bit = machine.bytes_of(config.precision), config.method == "qlora"
    weights = weight_bytes(shape, parameters, number, four_bit=four_bit)
    if four_bit:
        weights += number * max(linear.inputs * linear.outputs for linear in shape.linears())  # one in use
    copies = 0.0
    if config.method == "full":
        # Held in float32 under autocast; DeepSpeed makes them 16 bits and keeps float32 itself.
        autocast = number < FLOAT32 and not config.deepspeed
        held = FLOAT32 if autocast else number
        trained = Trained(parameters, held)
        training = Training(number, copies="autocast" if autocast else "shared")
        static = Memory(weights=held * parameters)
        if autocast and not (machine.fsdp and machine.processes > 1):  # FSDP gathers 16 bits as they are
            copies = copied(shape, number, shape.vocabulary * shape.hidden if part == "training" else 0)
    else:
        adapted = shape.adapted(config.adapter, field=f"{part}.adapter.modules")
        size = shape.adapter_parameters(config.adapter.rank, adapted)
        # PEFT keeps adapters in float32; TRL makes a student's on 4-bit weights bfloat16.
        trained = Trained(size, number if four_bit and part == "training" else FLOAT32)
        autocast = number < FLOAT32 and not four_bit
        training = Training(number, adapted, config.adapter.rank, copies="autocast" if autocast else "shared")
        static = Memory(weights=weights, adapters=size * (trained.number + (number if autocast else 0)))
    zero = zero_section(config.deepspeed, field=f"{part}.deepspeed")
    if machine.fsdp and machine.processes > 1 and not zero:
        static, trained_bytes = fully_sharded(static, trained, machine, shape, parameters)
    else:
        static, trained_bytes = placed(static, trained, machine, zero, parameters)
    # Rows behind a shared prefix are one sequence, whose mask is that of all their tokens.
    sequences = 1 if config.batching == "shared_prefix" else rows
    kept = activations(
        shape,
        training,
        rows=sequences,
        length=rows * config.max_length // sequences,
        checkpointing=config.gradient_checkpointing,
    )
    workspace = rows * config.max_length * backward_workspace(shape, training)
    accumulated = trained_bytes if config.gradient_accumulation > 1 else 0.0
    return fullest(
        [
            static.at("the backward pass begins", weights=copies, activations=kept, gradients=accumulated),
            static.at(
                "logits and their gradient",
                weights=copies,
                activations=kept - workspace,
                logits=logits,
                gradients=accumulated,
            ),
            static.at("the optimizer steps", activations=workspace, gradients=trained_bytes),
        ]
    )
