"""The training itself: TRL's RewardTrainer on tokenised pairs, an adapter and the head or all weights."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.references import ModelRef
from tasks.core.stage import Report
from tasks.reward_model.classifier import HEAD, load_classifier
from tasks.reward_model.config import RewardTrainingConfig
from tasks.reward_model.cost import StepClock, peak_memory_gb
from tasks.reward_model.tokens import padding_token
from tasks.sft.adapter import lora_config
from tasks.sft.checkpoints import reporting, train_to_the_end
from tasks.sft.row_order import repeatable
from tasks.sft.saving import mean_loss, save_trained
from tasks.sft.shared_batches import sharing
from tasks.sft.trainer_arguments import held_in, join_processes, trainer_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
    start: ModelRef,
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[dict[str, list[int]]],
    folder: Path,
    report: Report,
    *,
    base: ModelRef | None,
) -> Training:
    """Train a classifier with the weights of `start` on rows of `chosen_ids` and `rejected_ids` and save it to
    `folder`; `base` is what an adapter lies on, None for full weights.

    Goes on from the newest whole checkpoint in `checkpoints` beside the folder's parent. The loss is that of Bradley
    and Terry's model, -log sigmoid(better - worse), as in PERL (arXiv 2403.10704, section 3.1).
    """
    clock, checkpoints = StepClock(), folder.parent.parent / "checkpoints"
    trainer = _trainer(config, start, tokenizer, rows, checkpoints, [reporting(report), clock.callback()])
    train_to_the_end(trainer, checkpoints, field="reward_model.deepspeed")
    peak = peak_memory_gb()
    save_trained(trainer, folder, base, tokenizer)  # which has its own padding, not the trainer's
    return Training(int(trainer.state.global_step), mean_loss(trainer), clock.step_s, peak)


def _trainer(
    config: RewardTrainingConfig,
    start: ModelRef,
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[dict[str, list[int]]],
    checkpoints: Path,
    callbacks: list[Any],
) -> Any:
    from datasets import Dataset
    from transformers import set_seed
    from trl import RewardConfig, RewardTrainer

    keywords = trainer_arguments(config, checkpoints) | {
        "center_rewards_coefficient": config.centre or None,
        "max_length": None,  # the rows fit already; the trainer would leave long ones out
        "remove_unused_columns": False,  # the order by length needs its column
        # It takes the adapter's too.
        "disable_dropout": not (config.method != "full" and config.adapter.dropout),
    }
    # Before the model: by them a process knows its device, and whether weights are loaded in parts (ZeRO-3).
    arguments = RewardConfig(**keywords)
    join_processes(arguments)
    set_seed(config.seed)  # the head begins at random
    model = load_classifier(
        start,
        precision=held_in(config),
        padding=padding_token(tokenizer),
        four_bit=config.method == "qlora",
    )
    adapter = None
    if config.method != "full":  # the head begins at random: it is trained and saved whole
        adapter = lora_config(config.adapter, model, field="reward_model.adapter.modules", head=HEAD)
    padded = deepcopy(tokenizer)  # the trainer makes its padding the model's
    padded.pad_token = padded.convert_ids_to_tokens(padding_token(tokenizer))
    lengths = [max(map(len, row.values())) for row in rows]
    trainer = sharing(repeatable(RewardTrainer), mean=True)(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([*rows]).add_column("length", lengths),
        processing_class=padded,
        peft_config=adapter,
        callbacks=callbacks,
    )
    if config.method == "qlora":
        for parameter in trainer.model.parameters():
            # TRL makes what is trained bfloat16, and the head would meet states in another format.
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return trainer
