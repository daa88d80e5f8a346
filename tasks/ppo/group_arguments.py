"""What TRL's RLOO and GRPO trainers are told in the same way."""

from pathlib import Path
from typing import Any

from tasks.ppo.config import PPOConfig, check_processes
from tasks.ppo.group_config import GroupConfig
from tasks.ppo.masked import process_count


def group_arguments(
    config: PPOConfig, group: GroupConfig, checkpoints: Path, checkpoint_steps: int, dtype: Any
) -> dict[str, Any]:
    """Keywords of `RLOOConfig` and `GRPOConfig` for a model that computes in torch's `dtype`.

    An optimizer step, which is what TRL counts, sees the whole batch; checkpoints lie between two batches. Raises
    UserError for a batch that the processes cannot share.
    """
    import torch

    check_processes(config, process_count())
    here = config.batch_size // process_count()
    micro = next(size for size in range(min(config.micro_batch_size, here), 0, -1) if here % size == 0)
    return {
        "output_dir": str(checkpoints),
        "max_steps": config.total_steps() * group.iterations,
        "num_iterations": group.iterations,
        "num_generations": group.responses,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": here // micro,
        "steps_per_generation": here // micro,
        "max_completion_length": config.max_new_tokens,
        "temperature": config.temperature,
        "mask_truncated_completions": group.mask_cut,
        "beta": config.kl_coefficient,
        "epsilon": config.clip,
        "epsilon_high": group.clip_high or None,
        "learning_rate": config.policy_learning_rate,
        "lr_scheduler_type": config.schedule,
        "weight_decay": 0.0,
        "optim": "adamw_torch",
        "adam_epsilon": config.adam_epsilon,
        "max_grad_norm": config.max_grad_norm,
        "disable_dropout": True,  # the policy that is trained has to be the one that sampled
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "use_cpu": not torch.cuda.is_available(),
        "shuffle_dataset": False,  # the rows lie in their order, lap after lap
        "save_strategy": "steps",
        "save_steps": checkpoint_steps * group.iterations,
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is not finite has to show
        "report_to": "none",
        "disable_tqdm": True,
    }
