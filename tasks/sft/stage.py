"""Stage: supervised fine-tuning of a student on its examples (TRL's SFTTrainer): LoRA, QLoRA or full."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import read_examples
from tasks.core.models import load_model, load_tokenizer
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Report, Stage
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem
from tasks.sft.adapter import lora_config
from tasks.sft.checkpoints import reporting, train_to_the_end
from tasks.sft.config import TrainingConfig
from tasks.sft.row_order import repeatable
from tasks.sft.rows import fitting, tokenize
from tasks.sft.saving import mean_loss, save_trained
from tasks.sft.shared_batches import sharing
from tasks.sft.shared_prefix import behind_shared_prefix, check_model
from tasks.sft.trainer_arguments import be_deterministic, held_in, join_processes, trainer_arguments
from tasks.sft.weighting import reward_weights, weighted


class TrainingInputs(BaseModel):
    """What a student is trained from and on."""

    model: ModelRef
    """The model training starts from: base weights, or the adapter of an earlier iteration to go on with."""
    train: DatasetRef
    validation: DatasetRef | None = None
    problem: ProblemConfig


class TrainingResult(BaseModel):
    """The trained student."""

    model: ModelRef
    steps: int
    rows: int
    too_long: int = 0
    """Rows left out because their answer does not fit (`too_long: drop`)."""
    loss: float
    """Mean training loss over all steps."""
    validation_loss: float | None = None

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        figures = {"train/steps": float(self.steps), "train/loss": self.loss}
        return figures | ({"eval/loss": self.validation_loss} if self.validation_loss is not None else {})


def run(config: TrainingConfig, inputs: TrainingInputs, out: Path, report: Report) -> TrainingResult:
    """Train and save the student beneath `out`/model; goes on from the newest whole checkpoint beside `out`."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    examples = read_examples(inputs.train)
    if not examples:
        raise UserError("there is no row to train on", field="data.train")
    problem = load_problem(inputs.problem)
    tokenizer = load_tokenizer(inputs.model)
    given = len(examples)
    if config.too_long == "drop":
        examples = fitting(problem, tokenizer, examples, config.max_length)
    rows: list[dict[str, Any]] = [*tokenize(problem, tokenizer, examples, config.max_length)]
    if config.weighting == "reward":
        rows = [row | {"weight": weight} for row, weight in zip(rows, reward_weights(examples), strict=True)]
    validation = None
    if inputs.validation is not None:
        unseen = read_examples(inputs.validation)
        if config.too_long == "drop":
            unseen = fitting(problem, tokenizer, unseen, config.max_length)
        held_out = tokenize(problem, tokenizer, unseen, config.max_length)
        validation = Dataset.from_list(held_out)

    be_deterministic()
    going_on = inputs.model.base is not None
    checkpoints = out.parent / "checkpoints"
    keywords = trainer_arguments(config, checkpoints) | {
        "max_length": config.max_length,
        "packing": config.batching == "packed",
        "eval_strategy": "epoch" if validation is not None else "no",
        "save_strategy": "epoch" if config.select == "best" else "steps",
        "load_best_model_at_end": config.select == "best",
        "metric_for_best_model": "eval_loss" if config.select == "best" else None,
    }
    # Before the model: by them a process knows its device, and whether weights are loaded in parts (ZeRO-3).
    arguments = SFTConfig(**keywords)
    join_processes(arguments)
    model = load_model(
        inputs.model, precision=held_in(config), four_bit=config.method == "qlora", train_adapter=going_on
    )
    adapter = None
    if config.method != "full" and not going_on:
        adapter = lora_config(config.adapter, model, field="training.adapter.modules")
    shared = config.batching == "shared_prefix"
    if shared:
        check_model(model, rows, field="training.batching")
    trainer = sharing(weighted(repeatable(SFTTrainer)), mean=False)(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=validation,
        processing_class=tokenizer,
        data_collator=behind_shared_prefix if shared else None,
        peft_config=adapter,
        callbacks=[reporting(report)],
    )
    train_to_the_end(trainer, checkpoints)
    validation_loss = None
    if validation is not None:
        validation_loss = float(trainer.evaluate()["eval_loss"])
    folder = out / "model"
    base = None if config.method == "full" else (inputs.model.base or inputs.model)
    save_trained(trainer, folder, base)
    return TrainingResult(
        model=ModelRef(uri=str(folder), digest=folder_digest(folder), base=base, facts=inputs.model.facts),
        steps=int(trainer.state.global_step),
        rows=len(rows),
        too_long=given - len(rows),
        loss=mean_loss(trainer),
        validation_loss=validation_loss,
    )


STAGE = Stage("sft", run, TrainingConfig, TrainingInputs, TrainingResult, own_process=True, distributed=True)
