"""The training itself: TRL's RewardTrainer on tokenised pairs, an adapter and the head or all weights."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import UserError
from tasks.core.models import tidy_model
from tasks.core.stage import Report
from tasks.reward_model.classifier import HEAD
from tasks.reward_model.config import RewardTrainingConfig
from tasks.reward_model.cost import StepClock, peak_memory_gb
from tasks.reward_model.tokens import padding_token
from tasks.sft.checkpoints import newest_whole, reporting
from tasks.sft.row_order import repeatable

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Training:
    """How a training went."""

    steps: int
    loss: float
    """Mean over all steps, those before a resume included."""
    step_s: float
    peak_memory_gb: float


def train(
    config: RewardTrainingConfig,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[dict[str, list[int]]],
    folder: Path,
    report: Report,
) -> Training:
    """Train `model` on rows of `chosen_ids` and `rejected_ids` and save it to `folder`.

    Goes on from the newest whole checkpoint in `checkpoints` beside the folder's parent. The loss is that of Bradley
    and Terry's model, -log sigmoid(better - worse), as in PERL (arXiv 2403.10704, section 3.1).
    """
    clock, checkpoints = StepClock(), folder.parent.parent / "checkpoints"
    trainer = _trainer(config, model, tokenizer, rows, checkpoints, [reporting(report), clock.callback()])
    trainer.train(resume_from_checkpoint=newest_whole(checkpoints))
    peak = peak_memory_gb()
    trainer.save_model(str(folder))  # every process takes part
    if trainer.accelerator.is_main_process:
        tokenizer.save_pretrained(folder)  # with its own padding, not the trainer's
        tidy_model(folder)
    trainer.accelerator.wait_for_everyone()
    # Not what `train` returns: that leaves out the steps before a resume.
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Training(int(trainer.state.global_step), sum(losses) / len(losses), clock.step_s, peak)


def _trainer(
    config: RewardTrainingConfig,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[dict[str, list[int]]],
    checkpoints: Path,
    callbacks: list[Any],
) -> Any:
    import torch
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    by_length = config.batching == "length"
    arguments = RewardConfig(
        output_dir=str(checkpoints),
        learning_rate=config.learning_rate,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup,  # below 1 it is a share of the steps
        weight_decay=config.weight_decay,
        center_rewards_coefficient=config.centre or None,
        max_length=None,  # the rows fit already; the trainer would leave long ones out
        train_sampling_strategy="group_by_length" if by_length else "random",
        remove_unused_columns=False,  # the order by length needs its column
        disable_dropout=not (
            config.method == "lora" and config.adapter.dropout
        ),  # it takes the adapter's too
        gradient_checkpointing=config.gradient_checkpointing,
        bf16=model.dtype == torch.bfloat16,
        fp16=model.dtype == torch.float16,
        save_strategy="steps",
        save_steps=config.checkpoint_steps,
        save_total_limit=2,
        logging_steps=1,
        seed=config.seed,
        data_seed=config.seed,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    padded = deepcopy(tokenizer)  # the trainer makes its padding the model's
    padded.pad_token = padded.convert_ids_to_tokens(padding_token(tokenizer))
    lengths = [max(map(len, row.values())) for row in rows]
    return repeatable(RewardTrainer)(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([*rows]).add_column("length", lengths),
        processing_class=padded,
        peft_config=_adapter(config, model) if config.method == "lora" else None,
        callbacks=callbacks,
    )


def _adapter(config: RewardTrainingConfig, model: "PreTrainedModel") -> Any:
    """The adapter of the body; the head, which begins at random, is trained and saved whole."""
    import torch
    from peft import LoraConfig

    modules: str | list[str] = config.adapter.modules
    if isinstance(modules, str) and modules != "all-linear":
        names = [name.strip() for name in modules.split(",")]
        linear = {
            name.rpartition(".")[2]
            for name, part in model.named_modules()
            if isinstance(part, torch.nn.Linear)
        }
        if unknown := sorted(set(names) - linear):
            raise UserError(
                f"the model has no linear module named {', '.join(unknown)}",
                field="reward_model.adapter.modules",
                mend=f"choose among {', '.join(sorted(linear - {HEAD}))}, or all-linear",
            )
        modules = names
    return LoraConfig(
        r=config.adapter.rank,
        lora_alpha=config.adapter.alpha,
        lora_dropout=config.adapter.dropout,
        target_modules=modules,
        modules_to_save=[HEAD],
        task_type="SEQ_CLS",
    )
