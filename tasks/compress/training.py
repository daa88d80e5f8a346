"""Stage: train an encoder to say of every token whether its word is kept, and test it on held-out pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tasks.compress.training_config import CompressorTrainingConfig
from tasks.compress.word_scores import WordScores, score_words
from tasks.core.compression.chunks import tokens_of_words
from tasks.core.compression.token_classifier import (
    KEEP,
    fast_tokenizer,
    load_token_classifier,
    longest_input,
    special_tokens,
    tokenise,
)
from tasks.core.compression.words import split_words
from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import read_records
from tasks.core.models import torch_dtype
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Report, Stage
from tasks.core.store import fetch
from tasks.sft.adapter import lora_config
from tasks.sft.checkpoints import reporting, train_to_the_end
from tasks.sft.row_order import repeatable
from tasks.sft.saving import mean_loss
from tasks.sft.shared_batches import check_share, sharing
from tasks.sft.trainer_arguments import be_deterministic, held_in, trainer_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_IGNORED = -100
"""The label of tokens that no loss is taken of."""


class CompressorTrainingInputs(BaseModel):
    """The encoder, and the pairs it learns from and is tested on."""

    encoder: ModelRef
    train: DatasetRef
    test: DatasetRef


class CompressorTrainingResult(BaseModel):
    """The trained compressor."""

    model: ModelRef
    """Full weights with a head of two labels, and the tokenizer."""
    steps: int
    rows: int
    loss: float
    """Mean training loss over all steps."""
    held_out: WordScores
    calibration_plot: str

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        return {"train/steps": float(self.steps), "train/loss": self.loss} | self.held_out.metrics()


def check(config: CompressorTrainingConfig, *, processes: int = 1) -> None:
    """Raise UserError for settings that are for decoders only, or that so many processes cannot follow."""
    for field, value in (("method", "qlora"), ("batching", "packed")):
        if getattr(config, field) == value:
            raise UserError(
                f"{value} is for decoders", field=f"training.{field}", mend="choose another; see --help"
            )
    if config.deepspeed:
        raise UserError(
            "DeepSpeed is for decoders", field="training.deepspeed", mend="leave it out: encoders are small"
        )
    check_share(config.batch_size, processes, field="launch.processes")


def token_rows(
    tokenizer: "PreTrainedTokenizerBase", pairs: Sequence[Mapping[str, Any]], most: int
) -> list[dict[str, list[int]]]:
    """Token ids and labels of labelled chunks: every token of a word has the word's label, special ones have none.

    The ids are those of the text as it stands, of at most `most` tokens.
    """
    first, last = special_tokens(tokenizer)
    rows = []
    tokens = tokenise(tokenizer, [pair["text"] for pair in pairs])
    for pair, (ids, offsets) in zip(pairs, tokens, strict=True):
        labels = [_IGNORED] * len(ids)
        begins, ends = tokens_of_words(split_words(pair["text"]), offsets)
        for label, begin, end in zip(pair["labels"], begins.tolist(), ends.tolist(), strict=True):
            labels[begin:end] = [int(label)] * (end - begin)
        room = most - 2
        rows.append(
            {
                "input_ids": [first, *ids[:room].tolist(), last],
                "labels": [_IGNORED, *labels[:room], _IGNORED],
            }
        )
    return rows


def run(
    config: CompressorTrainingConfig, inputs: CompressorTrainingInputs, out: Path, report: Report
) -> CompressorTrainingResult:
    """Train and save the compressor beneath `out`/model; goes on from the newest whole checkpoint beside `out`."""
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    pairs = list(read_records(inputs.train))
    if not pairs:
        raise UserError("there is no pair to train on", field="texts.train")
    folder = fetch(inputs.encoder)
    tokenizer = fast_tokenizer(AutoTokenizer.from_pretrained(folder), "encoder.model")
    be_deterministic()
    checkpoints = out.parent / "checkpoints"
    # Before the model: by them a process knows its device, and whether weights are loaded in parts (ZeRO-3).
    arguments = TrainingArguments(**trainer_arguments(config, checkpoints))
    set_seed(config.seed)  # the head begins at random
    model = AutoModelForTokenClassification.from_pretrained(
        folder, num_labels=2, dtype=torch_dtype(held_in(config))
    )
    rows = token_rows(tokenizer, pairs, min(config.max_length, longest_input(model.config)))
    weight = _class_weight(rows) if config.balance == "inverse" else None
    if config.method == "lora":
        model = _adapted(config, model)

    class Weighted(Trainer):
        # The mean below is that of one batch, whatever else the model's forward takes.
        loss_is_scaled_for_ga = False

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            counted = None if weight is None else torch.tensor(weight, device=outputs.logits.device)
            loss = torch.nn.functional.cross_entropy(
                outputs.logits.float().flatten(0, 1), labels.flatten(), counted, ignore_index=_IGNORED
            )
            return (loss, outputs) if return_outputs else loss

    lengths = [len(row["input_ids"]) for row in rows]
    trainer = sharing(repeatable(Weighted), mean=True)(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows).add_column("length", lengths),
        data_collator=DataCollatorForTokenClassification(tokenizer),
        callbacks=[reporting(report)],
    )
    train_to_the_end(trainer, checkpoints)
    place = out / "model"
    if trainer.accelerator.is_main_process:
        trained = trainer.accelerator.unwrap_model(trainer.model)
        trained = trained.merge_and_unload() if config.method == "lora" else trained
        trained.save_pretrained(place)
        tokenizer.save_pretrained(place)
    trainer.accelerator.wait_for_everyone()
    scores, picture = score_words(load_token_classifier(place), list(read_records(inputs.test)))
    plot = out / "calibration.png"
    if trainer.accelerator.is_main_process:
        plot.write_bytes(picture)
    facts = {"compressor": True, "encoder": inputs.encoder.facts.get("name", "")}
    return CompressorTrainingResult(
        model=ModelRef(uri=str(place), digest=folder_digest(place), facts=facts),
        steps=int(trainer.state.global_step),
        rows=len(rows),
        loss=mean_loss(trainer),
        held_out=scores,
        calibration_plot=str(plot),
    )


def _class_weight(rows: Sequence[Mapping[str, list[int]]]) -> list[float]:
    """Weights of the two labels with which both count the same together; 1 for a label that never occurs."""
    labels = [label for row in rows for label in row["labels"] if label != _IGNORED]
    counts = [labels.count(1 - KEEP), labels.count(KEEP)]
    return [len(labels) / (2 * count) if count else 1.0 for count in counts]


def _adapted(config: CompressorTrainingConfig, model: "PreTrainedModel") -> Any:
    from peft import get_peft_model

    adapter = lora_config(config.adapter, model, field="training.adapter.modules", head="classifier")
    adapter.task_type = "TOKEN_CLS"
    return get_peft_model(model, adapter)


STAGE = Stage(
    "compressor_training",
    run,
    CompressorTrainingConfig,
    CompressorTrainingInputs,
    CompressorTrainingResult,
    own_process=True,
    distributed=True,
)
