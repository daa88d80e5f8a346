"""Stage: supervised fine-tuning of a student on its examples (TRL's SFTTrainer): LoRA, QLoRA or full."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import read_examples
from tasks.core.models import load_model, load_tokenizer, tidy_model
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Report, Stage
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem
from tasks.sft.checkpoints import newest_whole, reporting
from tasks.sft.config import TrainingConfig
from tasks.sft.row_order import repeatable
from tasks.sft.rows import tokenize
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
    loss: float
    """Mean training loss over all steps."""
    validation_loss: float | None = None

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        figures = {"train/steps": float(self.steps), "train/loss": self.loss}
        return figures | ({"eval/loss": self.validation_loss} if self.validation_loss is not None else {})


def run(config: TrainingConfig, inputs: TrainingInputs, out: Path, report: Report) -> TrainingResult:
    """Train and save the student beneath `out`/model; goes on from the newest whole checkpoint beside `out`."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    examples = read_examples(inputs.train)
    if not examples:
        raise UserError("there is no row to train on", field="data.train")
    problem = load_problem(inputs.problem)
    tokenizer = load_tokenizer(inputs.model)
    rows: list[dict[str, Any]] = [*tokenize(problem, tokenizer, examples, config.max_length)]
    if config.weighting == "reward":
        rows = [row | {"weight": weight} for row, weight in zip(rows, reward_weights(examples), strict=True)]
    validation = None
    if inputs.validation is not None:
        held_out = tokenize(problem, tokenizer, read_examples(inputs.validation), config.max_length)
        validation = Dataset.from_list(held_out)

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = (
        False  # a debugging aid that costs time at every allocation
    )
    going_on = inputs.model.base is not None
    model = load_model(
        inputs.model, precision=config.precision, four_bit=config.method == "qlora", train_adapter=going_on
    )
    checkpoints = out.parent / "checkpoints"
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        learning_rate=config.learning_rate,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup,  # below 1 it is a share of the steps
        weight_decay=config.weight_decay,
        max_length=config.max_length,
        packing=config.batching == "packed",
        train_sampling_strategy="group_by_length" if config.batching == "length" else "random",
        gradient_checkpointing=config.gradient_checkpointing,
        bf16=model.dtype == torch.bfloat16,
        fp16=model.dtype == torch.float16,
        eval_strategy="epoch" if validation is not None else "no",
        save_strategy="epoch" if config.select == "best" else "steps",
        save_steps=config.checkpoint_steps,
        save_total_limit=2,
        load_best_model_at_end=config.select == "best",
        metric_for_best_model="eval_loss" if config.select == "best" else None,
        deepspeed=config.deepspeed or None,
        logging_steps=1,
        seed=config.seed,
        data_seed=config.seed,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = weighted(repeatable(SFTTrainer))(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=_adapter(config) if config.method != "full" and not going_on else None,
        callbacks=[reporting(report)],
    )
    trainer.train(resume_from_checkpoint=newest_whole(checkpoints))
    validation_loss = None
    if validation is not None:
        validation_loss = float(trainer.evaluate()["eval_loss"])
    folder = out / "model"
    trainer.save_model(str(folder))  # every process takes part: sharded weights are gathered
    if trainer.accelerator.is_main_process:
        tidy_model(folder)
    trainer.accelerator.wait_for_everyone()
    # Not what `train` returns: that leaves out the steps before a resume.
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    base = None if config.method == "full" else (inputs.model.base or inputs.model)
    return TrainingResult(
        model=ModelRef(uri=str(folder), digest=folder_digest(folder), base=base, facts=inputs.model.facts),
        steps=int(trainer.state.global_step),
        rows=len(rows),
        loss=sum(losses) / len(losses),
        validation_loss=validation_loss,
    )


def _adapter(config: TrainingConfig) -> Any:
    from peft import LoraConfig

    modules = config.adapter.modules
    return LoraConfig(
        r=config.adapter.rank,
        lora_alpha=config.adapter.alpha,
        lora_dropout=config.adapter.dropout,
        target_modules=modules if modules == "all-linear" else [name.strip() for name in modules.split(",")],
        task_type="CAUSAL_LM",
    )


STAGE = Stage("sft", run, TrainingConfig, TrainingInputs, TrainingResult, own_process=True, distributed=True)
