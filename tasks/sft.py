"""Stage: supervised fine-tuning of a student on its examples (TRL's SFTTrainer): LoRA, QLoRA or full."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import Example, read_examples
from tasks.core.models import (
    Precision,
    end_of_turn,
    four_bit_config,
    load_model,
    load_tokenizer,
    render,
    tidy_model,
)
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.row_order import repeatable
from tasks.core.stage import Report, Stage
from tasks.problems.base import Problem, ProblemConfig
from tasks.problems.load import load_problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerCallback


class AdapterConfig(Config):
    """The low-rank adapter (LoRA) that is trained instead of the weights."""

    rank: int = Field(16, ge=1, le=1024)
    """Rank of the update."""
    alpha: int = Field(32, ge=1, le=4096)
    """Scale of the update; it is applied as alpha / rank."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Dropout on the adapter's input."""
    modules: str = "all-linear"
    """`all-linear`, or names of modules separated by commas (`q_proj,v_proj`)."""


class TrainingConfig(Config):
    """How the student is trained."""

    method: Literal["lora", "qlora", "full"] = "lora"
    """Train an adapter, an adapter on 4-bit weights (needs bitsandbytes), or all weights."""
    learning_rate: float = Field(2e-4, gt=0.0, le=1.0)
    """Peak learning rate. Full fine-tuning wants less (2e-5 in the paper) than an adapter."""
    epochs: float = Field(3.0, gt=0.0, le=1000.0)
    """Passes over the data."""
    max_steps: int = Field(0, ge=0)
    """Optimizer steps; 0 leaves it to `epochs`."""
    batch_size: int = Field(8, ge=1, le=4096)
    """Rows per forward pass and process. Lower it when memory runs out, and raise `gradient_accumulation`."""
    gradient_accumulation: int = Field(1, ge=1, le=1024)
    """Forward passes per optimizer step."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """How the learning rate falls."""
    warmup: float = Field(0.03, ge=0.0, lt=1.0)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0.0, le=1.0)
    """Decoupled weight decay."""
    max_length: int = Field(1024, ge=8, le=1_048_576)
    """Longest row in tokens; longer ones lose the beginning of their input, never their answer."""
    batching: Literal["length", "random", "packed"] = "length"
    """Rows of similar length together (little padding), at random, or several rows packed into one sequence."""
    precision: Precision = "auto"
    """Number format of the weights; auto is bfloat16 on GPUs that have it, else float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    select: Literal["last", "best"] = "last"
    """Keep the last step's weights, or the epoch's with the lowest loss on the validation set."""
    checkpoint_steps: int = Field(50, ge=1, json_schema_extra=PLACEMENT)
    """A killed training goes on from a checkpoint at most this many steps old."""
    deepspeed: str = ""
    """A DeepSpeed configuration file (ZeRO); empty trains without."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the adapter's initial weights and of the order of the rows."""
    adapter: AdapterConfig = AdapterConfig()
    """The adapter, for `lora` and `qlora`."""


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


def check(config: TrainingConfig, *, has_validation: bool) -> None:
    """Raise UserError for settings that this machine or this data cannot follow, before anything is loaded."""
    if config.select == "best" and not has_validation:
        raise UserError("`best` needs a validation set", field="training.select", mend="set data.validation")
    if config.method == "qlora":
        four_bit_config("float32")
    if config.deepspeed and not Path(config.deepspeed).is_file():
        raise UserError(f"there is no file {config.deepspeed}", field="training.deepspeed")


def tokenize(
    problem: Problem, tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example], max_length: int
) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` of each example: the prompt's labels are -100, so that the loss sees answers only.

    A row longer than `max_length` loses tokens at the start of its prompt. Raises UserError when an answer alone
    does not fit.
    """
    rows = []
    for example in examples:
        prompt = render(tokenizer, problem.prompt(example))
        answer = tokenizer(problem.target(example), add_special_tokens=False)["input_ids"] + [
            end_of_turn(tokenizer)
        ]
        if len(answer) >= max_length:
            raise UserError(
                f"the answer of row {example.id} has {len(answer)} tokens",
                field="training.max_length",
                mend=f"raise it above {len(answer)} or leave the row out (now {max_length})",
            )
        prompt = prompt[-(max_length - len(answer)) :]
        rows.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    return rows


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
    rows = tokenize(problem, tokenizer, examples, config.max_length)
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
    trainer = repeatable(SFTTrainer)(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=_adapter(config) if config.method != "full" and not going_on else None,
        callbacks=[_reporting(report)],
    )
    trainer.train(resume_from_checkpoint=_newest_whole(checkpoints))
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


def steps_for(config: TrainingConfig, rows: int) -> int:
    """Optimizer steps a training of `rows` rows takes in one process."""
    per_epoch = math.ceil(math.ceil(rows / config.batch_size) / config.gradient_accumulation)
    return config.max_steps or math.ceil(config.epochs * per_epoch)


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


_WHOLE = "whole.json"  # written into a checkpoint after everything else: a torn one is never resumed from


def _newest_whole(checkpoints: Path) -> str | None:
    whole = [path.parent for path in checkpoints.glob(f"checkpoint-*/{_WHOLE}")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


def _reporting(report: Report) -> "TrainerCallback":
    from transformers import TrainerCallback

    names = {"loss": "train/loss", "learning_rate": "train/learning_rate", "grad_norm": "train/grad_norm"}
    names |= {"eval_loss": "eval/loss"}

    class Reporting(TrainerCallback):
        """Passes figures and progress on, and marks checkpoints that are written in full."""

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
            figures = {names[key]: float(value) for key, value in logs.items() if key in names}
            if figures and state.is_world_process_zero:
                report({"step": state.global_step} | figures)
                text = f"loss {figures['train/loss']:.3f}" if "train/loss" in figures else ""
                report({"progress": [state.global_step, state.max_steps], "text": text})

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                (folder / _WHOLE).write_text(json.dumps({"step": state.global_step}), encoding="utf-8")

    return Reporting()


STAGE = Stage("sft", run, TrainingConfig, TrainingInputs, TrainingResult, own_process=True, distributed=True)
