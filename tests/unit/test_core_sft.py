"""Supervised fine-tuning of a tiny model: what the loss sees, which weights move, and that a seed decides the rest."""

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import make_example, read_examples, write_rows
from tasks.core.models import load_model, load_tokenizer
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem
from tasks.sft import stage as sft
from tasks.sft.checkpoints import newest_whole
from tasks.sft.config import AdapterConfig, TrainingConfig, check
from tasks.sft.rows import tokenize
from tasks.sft.stage import TrainingInputs

PROBLEM = ProblemConfig(name="classification", labels=("music", "weather"))
ROWS = [
    make_example("play a song by my favourite artist in the kitchen please", "music"),
    make_example("will it rain?", "weather"),
    make_example("turn up the radio", "music"),
    make_example("how cold will tomorrow be in Berlin", "weather"),
    make_example("jazz", "music"),
]
QUICK = {"max_steps": 3, "batch_size": 2, "learning_rate": 0.01, "warmup": 0.0}


class Bench:
    """A folder in which students are trained."""

    def __init__(self, folder: Path, model) -> None:
        self.folder, self.model, self.events = folder, model, []

    def train(self, name="job", rows=ROWS, *, model=None, validation=None, **changes):
        out = self.folder / name / "out"
        inputs = TrainingInputs(
            model=model or self.model,
            train=write_rows(self.folder / name / "train.jsonl", rows),
            validation=write_rows(self.folder / name / "held.jsonl", validation) if validation else None,
            problem=PROBLEM,
        )
        self.events.clear()
        return sft.run(TrainingConfig(**QUICK | changes), inputs, out, self.events.append)

    def losses(self):
        return [event["train/loss"] for event in self.events if "train/loss" in event]


@pytest.fixture
def bench(tmp_path, tiny_ref):
    return Bench(tmp_path, tiny_ref)


def answer_loss(ref, rows) -> float:
    """Mean cross-entropy over the tokens of the answers, a row at a time: what the trainer should report."""
    import torch

    model, tokenizer = load_model(ref), load_tokenizer(ref)
    losses = []
    for row in tokenize(load_problem(PROBLEM), tokenizer, rows, 1024):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
        scores = torch.log_softmax(logits.float(), -1)
        labels = row["labels"]
        losses += [-float(scores[at - 1, label]) for at, label in enumerate(labels) if label != -100]
    return sum(losses) / len(losses)


def test_only_the_answer_and_the_end_of_the_turn_are_labelled(tiny_ref):
    tokenizer = load_tokenizer(tiny_ref)
    (row,) = tokenize(load_problem(PROBLEM), tokenizer, ROWS[:1], 1024)
    labelled = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == token]
    assert tokenizer.decode(labelled) == "music<|im_end|>"
    prompt = tokenizer.decode(row["input_ids"][: -len(labelled)])
    assert prompt.endswith(f"{ROWS[0].input}<|im_end|>\n<|im_start|>assistant\n")
    assert set(row["labels"][: -len(labelled)]) == {-100}


def test_a_row_that_is_too_long_loses_the_start_of_its_prompt_and_never_its_answer(tiny_ref):
    tokenizer, problem = load_tokenizer(tiny_ref), load_problem(PROBLEM)
    (whole,) = tokenize(problem, tokenizer, ROWS[:1], 1024)
    (cut,) = tokenize(problem, tokenizer, ROWS[:1], 20)
    assert cut["input_ids"] == whole["input_ids"][-20:]
    assert cut["labels"] == whole["labels"][-20:]


def test_an_answer_that_does_not_fit_is_refused_with_its_row(tiny_ref):
    long = make_example("who?", "weather " * 90)
    with pytest.raises(UserError, match=long.id) as caught:
        tokenize(load_problem(ProblemConfig(name="exact_match")), load_tokenizer(tiny_ref), [long], 64)
    assert caught.value.field == "training.max_length"


def test_rows_whose_answer_does_not_fit_can_be_left_out_and_are_counted(bench):
    long = make_example("who?", "weather " * 90)
    dropped = bench.train("dropped", [ROWS[0], long, *ROWS[1:]], max_length=64, too_long="drop")
    without = bench.train("without", ROWS, max_length=64)
    assert (dropped.rows, dropped.too_long, without.too_long) == (len(ROWS), 1, 0)
    assert dropped.model.digest == without.model.digest
    with pytest.raises(UserError, match="no row has an answer that fits into 64 tokens"):
        bench.train("none", [long], max_length=64, too_long="drop")


@pytest.mark.parametrize("batching", ["length", "random", "packed", "shared_prefix"])
def test_the_loss_is_that_of_the_answers_alone(bench, batching):
    rows = ROWS[:2]
    bench.train(rows=rows, batching=batching, max_steps=1, max_length=256)
    assert bench.losses()[0] == pytest.approx(answer_loss(bench.model, rows), rel=1e-3)


def test_lora_trains_an_adapter_and_leaves_the_base_alone(bench, tiny_model):
    before = folder_digest(tiny_model)
    result = bench.train(method="lora", adapter=AdapterConfig(rank=4))
    files = sorted(path.name for path in Path(result.model.uri).glob("*.safetensors"))
    adapter = load_file(Path(result.model.uri) / "adapter_model.safetensors")
    assert (files, result.model.base) == (["adapter_model.safetensors"], bench.model)
    assert folder_digest(tiny_model) == before
    moved = {name: abs(value).max() for name, value in adapter.items() if "lora_B" in name}  # zero at first
    assert len(moved) == 14  # seven linear layers in each of two blocks
    assert min(moved.values()) > 0
    assert {value.shape[0] for name, value in adapter.items() if "lora_A" in name} == {4}
    assert folder_digest(Path(result.model.uri)) == result.model.digest
    modules = json.loads((Path(result.model.uri) / "adapter_config.json").read_text())["target_modules"]
    assert modules == sorted(modules)  # PEFT's own order is another one in every process
    assert (result.steps, result.rows) == (3, 5)


def test_full_fine_tuning_moves_the_weights(bench, tiny_model):
    result = bench.train(method="full")
    before, after = (
        load_file(tiny_model / "model.safetensors"),
        load_file(Path(result.model.uri) / "model.safetensors"),
    )
    assert result.model.base is None
    assert before.keys() == after.keys()
    assert all((before[name] != after[name]).any() for name in before)


def test_training_makes_the_right_answers_likelier(bench):
    before = answer_loss(bench.model, ROWS)
    result = bench.train(max_steps=30)
    assert answer_loss(result.model, ROWS) < before * 0.6


def test_small_steps_move_full_weights_in_16_bits(bench, tiny_model):
    """Held in 16 bits, weights would be rounded by more than all steps together."""
    result = bench.train(
        method="full", precision="bfloat16", learning_rate=1e-6, schedule="constant_with_warmup"
    )
    start, trained = (
        load_file(Path(place) / "model.safetensors") for place in (tiny_model, result.model.uri)
    )
    ways = [abs(trained[name] - start[name]) for name in start if name != "model.embed_tokens.weight"]
    assert max(way.max() for way in ways) < 4e-6
    assert sum((way > 0).sum() for way in ways) > 0.5 * sum(way.size for way in ways)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_seed_decides_the_weights(bench, method):
    digests = [
        bench.train(f"job-{n}", method=method, seed=seed).model.digest for n, seed in enumerate((7, 7, 8))
    ]
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_training_goes_on_from_an_adapter(bench):
    first = bench.train("first", max_steps=20)
    second = bench.train("second", model=first.model, max_steps=1)
    assert bench.losses()[0] < answer_loss(bench.model, ROWS) * 0.6  # it starts where the first one ended
    assert second.model.base == bench.model
    assert second.model.digest != first.model.digest


def test_one_row_is_enough(bench):
    result = bench.train(rows=ROWS[:1], max_steps=0, epochs=2.0)
    assert (result.steps, result.rows) == (2, 1)


def test_no_row_is_a_mistake_of_the_data(bench):
    with pytest.raises(UserError, match="no row") as caught:
        bench.train(rows=[])
    assert caught.value.field == "data.train"


@pytest.mark.parametrize(
    ("rows", "changes", "steps"),
    [(5, {"epochs": 3.0}, 9), (5, {"epochs": 1.0, "gradient_accumulation": 2}, 2), (5, {"max_steps": 4}, 4)],
)
def test_steps_follow_from_rows_epochs_and_batches(bench, rows, changes, steps):
    changes = {"max_steps": 0, "batch_size": 2} | changes
    assert bench.train(rows=ROWS[:rows], **changes).steps == steps


def test_the_best_epoch_by_validation_loss_is_kept(bench):
    """Trained towards the wrong labels, the student gets worse on the right ones with every epoch."""
    swapped = {"music": "weather", "weather": "music"}
    wrong = [make_example(row.input, swapped[row.target]) for row in ROWS]
    settings = {"max_steps": 0, "epochs": 12.0, "batch_size": 5, "schedule": "constant_with_warmup"}
    best = bench.train("best", wrong, validation=ROWS, select="best", **settings)
    validation = [event["eval/loss"] for event in bench.events if "eval/loss" in event]
    last = bench.train("last", wrong, validation=ROWS, select="last", **settings)
    assert best.validation_loss == pytest.approx(min(validation), rel=1e-4)
    assert best.validation_loss < last.validation_loss
    assert best.validation_loss == pytest.approx(_mean_of_batches(best.model), rel=1e-3)


def _mean_of_batches(model) -> float:
    return answer_loss(model, ROWS)  # all rows fit into one batch


def test_best_without_a_validation_set_is_refused_before_anything_is_loaded():
    with pytest.raises(UserError, match="needs a validation set") as caught:
        check(TrainingConfig(select="best"), has_validation=False)
    assert caught.value.field == "training.select"
    with pytest.raises(UserError, match="no DeepSpeed configuration nowhere"):
        check(TrainingConfig(deepspeed="nowhere.json"), has_validation=True)


def test_a_torn_checkpoint_is_not_resumed_from(bench):
    whole = bench.train("whole", max_steps=4, checkpoint_steps=2)
    torn = bench.folder / "torn" / "checkpoints" / "checkpoint-3"
    torn.mkdir(parents=True)
    (torn / "trainer_state.json").write_text('{"global_')
    again = bench.train("torn", max_steps=4, checkpoint_steps=2)
    assert again.model.digest == whole.model.digest
    assert [event["step"] for event in bench.events if "train/loss" in event] == [1, 2, 3, 4]


@pytest.mark.parametrize("batching", ["length", "random", "packed", "shared_prefix"])
def test_training_resumes_from_the_newest_whole_checkpoint_to_the_same_weights(bench, batching):
    settings = {"max_steps": 12, "checkpoint_steps": 5, "batching": batching, "max_length": 128}
    rows = ROWS * 3  # eight steps, or fewer, are an epoch: it is resumed in the middle of a later one
    undisturbed = bench.train("undisturbed", rows, **settings)
    checkpoints = bench.folder / "undisturbed" / "checkpoints"
    assert newest_whole(checkpoints) == checkpoints / "checkpoint-12"
    # As a kill after step 11 leaves it: what came after the checkpoint of step 10 is lost.
    (checkpoints / "checkpoint-12" / "whole.json").unlink()
    resumed = bench.train("undisturbed", rows, **settings)
    assert [event["step"] for event in bench.events if "train/loss" in event] == [11, 12]
    assert resumed.model.digest == undisturbed.model.digest
    assert resumed.loss == undisturbed.loss


def test_the_rows_written_are_the_rows_read(tmp_path):
    assert read_examples(write_rows(tmp_path / "rows.jsonl", ROWS)) == ROWS
