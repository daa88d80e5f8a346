"""Training on a model's own answers: their words are the labels, and their rewards may weigh the loss."""

from pathlib import Path

import pytest
import torch

from tasks.core.errors import UserError
from tasks.core.examples import Example, make_example, make_sample, write_rows
from tasks.core.models import load_model, load_tokenizer
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem
from tasks.sft import stage as sft
from tasks.sft.config import TrainingConfig, check
from tasks.sft.rows import tokenize
from tasks.sft.stage import TrainingInputs
from tasks.sft.weighting import reward_weights

PROBLEM = ProblemConfig(name="numeric")
QUESTION = make_example("Anna has 12 apples and buys 30. How many?", "12 + 30 = 42\n#### 42")
SAMPLES = [
    make_sample(QUESTION, text).model_copy(update={"reward": reward})
    for text, reward in (("12 and 30 is 42. #### 42", 1.0), ("#### 41", 0.2), ("I do not know", 0.0))
]


def token_losses(ref, row: Example) -> list[float]:
    """Cross-entropy of each answer token, one row at a time."""
    model = load_model(ref)
    (encoded,) = tokenize(load_problem(PROBLEM), load_tokenizer(ref), [row], 1024)
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([encoded["input_ids"]])).logits[0].log_softmax(-1)
    return [-float(scores[at - 1, label]) for at, label in enumerate(encoded["labels"]) if label != -100]


def train(folder: Path, ref, rows, **changes) -> tuple[sft.TrainingResult, list[float]]:
    settings = {"max_steps": 1, "batch_size": 4, "learning_rate": 0.01, "warmup": 0.0} | changes
    inputs = TrainingInputs(model=ref, train=write_rows(folder / "rows.jsonl", rows), problem=PROBLEM)
    events: list[dict] = []
    result = sft.run(TrainingConfig(**settings), inputs, folder / "job" / "out", events.append)
    return result, [event["train/loss"] for event in events if "train/loss" in event]


def test_a_sample_is_trained_on_its_own_words(tiny_ref):
    tokenizer, problem = load_tokenizer(tiny_ref), load_problem(PROBLEM)
    own, given = tokenize(problem, tokenizer, [SAMPLES[0], QUESTION], 1024)
    for row, text in ((own, SAMPLES[0].completion), (given, QUESTION.target)):
        answer = [token for token in row["labels"] if token != -100]
        assert tokenizer.decode(answer) == f"{text}<|im_end|>"
    assert own["input_ids"][: own["labels"].count(-100)] == given["input_ids"][: given["labels"].count(-100)]


def test_an_empty_answer_is_no_answer_to_fall_back_from(tiny_ref):
    (row,) = tokenize(load_problem(PROBLEM), load_tokenizer(tiny_ref), [make_sample(QUESTION, "")], 1024)
    assert len([token for token in row["labels"] if token != -100]) == 1  # the end of the turn


def test_weights_are_rewards_over_their_mean():
    assert reward_weights(SAMPLES) == pytest.approx([2.5, 0.5, 0.0])


@pytest.mark.parametrize("rewards", [[1.0, None], [0.0, 0.0], [1.0, -0.5]])
def test_rows_that_cannot_be_weighted_are_refused(rewards):
    rows = [SAMPLES[0].model_copy(update={"reward": reward}) for reward in rewards]
    with pytest.raises(UserError, match="rewards that are known") as caught:
        reward_weights(rows)
    assert caught.value.field == "training.weighting"


@pytest.mark.parametrize("batching", ["length", "random", "shared_prefix"])
def test_the_weighted_loss_is_the_one_computed_by_hand(tmp_path, tiny_ref, batching):
    losses = [token_losses(tiny_ref, row) for row in SAMPLES]
    tokens = sum(map(len, losses))
    by_hand = sum(w * sum(row) for w, row in zip(reward_weights(SAMPLES), losses, strict=True)) / tokens
    equal = sum(map(sum, losses)) / tokens
    _, (weighted, *_) = train(tmp_path / "weighted", tiny_ref, SAMPLES, weighting="reward", batching=batching)
    _, (plain, *_) = train(tmp_path / "plain", tiny_ref, SAMPLES, batching=batching)
    assert weighted == pytest.approx(by_hand, rel=1e-3)
    assert plain == pytest.approx(equal, rel=1e-3)
    assert abs(by_hand - equal) > 0.05


def test_equal_rewards_train_like_no_weights(tmp_path, tiny_ref):
    rows = [row.model_copy(update={"reward": 0.5}) for row in SAMPLES]
    one, _ = train(tmp_path / "one", tiny_ref, rows, weighting="reward", max_steps=3)
    two, _ = train(tmp_path / "two", tiny_ref, rows, max_steps=3)
    assert one.model.digest == two.model.digest


def test_a_worthless_row_teaches_nothing(tmp_path, tiny_ref):
    other = make_sample(QUESTION, "know not do I").model_copy(update={"reward": 0.0})
    sizes = {len(token_losses(tiny_ref, row)) for row in (SAMPLES[2], other)}
    assert len(sizes) == 1  # its words do not count, but its length is in the mean
    one, two, equal = (
        train(tmp_path / name, tiny_ref, [SAMPLES[0], row], weighting=weighting, max_steps=3)[0].model.digest
        for name, row, weighting in (
            ("one", SAMPLES[2], "reward"),
            ("two", other, "reward"),
            ("equal", SAMPLES[2], "equal"),
        )
    )
    assert one == two != equal


def test_packed_rows_cannot_be_weighted():
    with pytest.raises(UserError, match="cannot be weighted"):
        check(TrainingConfig(weighting="reward", batching="packed"), has_validation=False)
