"""What every trainer of TRL and transformers is told in the same way."""

import os
from pathlib import Path
from typing import Any

from tasks.core.launching.fsdp import in_fsdp, share_on_cpus
from tasks.core.launching.zero import build_operator, read_deepspeed
from tasks.core.models import Precision, torch_dtype
from tasks.sft.config import check_beside_fsdp
from tasks.sft.optimiser_config import OptimiserConfig


def be_deterministic() -> None:
    """Let the same training give the same weights, as far as torch can; call it before the model is loaded."""
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time at every allocation


def join_processes(arguments: Any) -> None:
    """Let DeepSpeed find the other processes by a trainer's `arguments`; call it before the model is loaded, of which
    with ZeRO-3 each process loads a part."""
    if not arguments.deepspeed:
        return
    import deepspeed
    import torch

    if arguments.world_size == 1:
        # Alone in its group, of which nobody else has to know the address: without one DeepSpeed asks MPI for it.
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        os.environ.setdefault("LOCAL_RANK", "0")
        torch.distributed.init_process_group(
            backend, store=torch.distributed.HashStore(), rank=0, world_size=1
        )
    deepspeed.init_distributed()


def held_in(config: OptimiserConfig) -> Precision:
    """The format in which a trainer's model is loaded: float32 where all weights are trained, for steps of a small
    learning rate are rounded away in 16 bits; the trainer then computes in `config.precision` under autocast.

    DeepSpeed keeps float32 weights itself.
    """
    return "float32" if config.method == "full" and not config.deepspeed else config.precision


def trainer_arguments(config: OptimiserConfig, checkpoints: Path) -> dict[str, Any]:
    """Keywords of `TrainingArguments`, and so of every trainer's own configuration.

    `max_length` is not among them: trainers differ in what they do with rows that are longer. Raises UserError where
    FSDP is to share what it cannot (`check_beside_fsdp`).
    """
    import torch

    dtype = torch_dtype(config.precision)
    if in_fsdp():
        check_beside_fsdp(config, field="training")
    if in_fsdp() and not torch.cuda.is_available():
        share_on_cpus()
    if config.deepspeed:
        build_operator()
    # QLoRA (arXiv 2305.14314, section 3): its moments lie in pages that leave the GPU where a long row needs the room.
    paged = config.method == "qlora" and torch.cuda.is_available()
    return ({"optim": "paged_adamw_32bit"} if paged else {}) | {
        "output_dir": str(checkpoints),
        "learning_rate": config.learning_rate,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup,  # below 1 it is a share of the steps
        "weight_decay": config.weight_decay,
        "train_sampling_strategy": "group_by_length" if config.batching == "length" else "random",
        "gradient_checkpointing": config.gradient_checkpointing,
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "save_strategy": "steps",
        "save_steps": config.checkpoint_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "seed": config.seed,
        "data_seed": config.seed,
        "report_to": "none",
        "disable_tqdm": True,
        "deepspeed": read_deepspeed(config.deepspeed) if config.deepspeed else None,
        "use_cpu": not torch.cuda.is_available(),
    }
