"""The training of a compressor: labels on tokens, a rule that is learned, a kill that is made good."""

import random

import numpy as np
import pytest

from tasks.compress import training
from tasks.compress.training import CompressorTrainingInputs, token_rows
from tasks.compress.training_config import CompressorTrainingConfig
from tasks.compress.word_scores import score_words, word_scores
from tasks.core.compression.token_classifier import load_token_classifier
from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import write_rows
from tasks.core.references import ModelRef
from tests.tiny_encoder import build_tiny_encoder

CONTENT = ("library", "books", "room", "reading", "weekdays", "numbers", "return", "nine")
FILLERS = ("the", "at", "on", "but", "not", "may", "who", "will")


def pairs(count, seed):
    """Texts in which words of content are kept and fillers are not."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        words = [draw.choice(CONTENT + FILLERS) for _ in range(draw.randint(4, 20))]
        labels = "".join("01"[word in CONTENT] for word in words)
        rows.append({"text": " ".join(words), "labels": labels})
    return rows


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = build_tiny_encoder(tmp_path_factory.mktemp("encoder") / "bert", head=False, spread=0.1)
    return ModelRef(uri=str(folder), digest=folder_digest(folder))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    return {
        "train": write_rows(folder / "train.jsonl", pairs(60, 1)),
        "test": write_rows(folder / "test.jsonl", pairs(20, 2)),
    }


CONFIG = CompressorTrainingConfig(learning_rate=1e-2, epochs=6, batch_size=10, checkpoint_steps=3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, encoder, data):
    out = tmp_path_factory.mktemp("trained") / "out"
    inputs = CompressorTrainingInputs(encoder=encoder, **data)
    return training.run(CONFIG, inputs, out, lambda event: None)


def test_a_rule_is_learned_and_the_loaded_weights_know_it(trained):
    assert trained.steps == 36
    assert trained.held_out.f1 > 0.97
    assert trained.held_out.f1_at_rate > 0.97
    assert trained.held_out.calibration_error < 0.1
    assert 0.4 < trained.held_out.kept_share < 0.6


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, encoder, data, trained):
    class Killed(Exception):
        pass

    def kill(event):
        if event.get("step") == 10:
            raise Killed

    inputs = CompressorTrainingInputs(encoder=encoder, **data)
    with pytest.raises(Killed):
        training.run(CONFIG, inputs, tmp_path / "out", kill)
    steps = []
    again = training.run(
        CONFIG,
        inputs,
        tmp_path / "out",
        lambda event: steps.append(event["step"]) if "step" in event else None,
    )
    assert min(steps) == 10  # from the checkpoint of step 9
    assert again.model.digest == trained.model.digest


def test_a_batch_in_parts_is_the_batch(tmp_path, encoder, data):
    """Its loss and the size of its gradient, and so the step."""
    found = {}
    for parts in (1, 5):
        sizes = {"batch_size": 60 // parts, "gradient_accumulation": parts}
        config = CONFIG.model_copy(update=sizes | {"max_steps": 1})
        steps = []
        inputs = CompressorTrainingInputs(encoder=encoder, **data)
        training.run(config, inputs, tmp_path / str(parts) / "out", steps.append)
        found[parts] = next(step for step in steps if "train/grad_norm" in step)
    for figure in ("train/loss", "train/grad_norm"):
        assert found[5][figure] == pytest.approx(found[1][figure], rel=0.1)


def test_an_adapter_is_merged_into_full_weights(tmp_path, encoder, data):
    config = CONFIG.model_copy(update={"method": "lora", "max_steps": 3})
    found = training.run(
        config, CompressorTrainingInputs(encoder=encoder, **data), tmp_path, lambda event: None
    )
    classifier = load_token_classifier(tmp_path / "model")
    assert found.steps == 3
    scores, _ = score_words(classifier, pairs(20, 2))
    assert scores == found.held_out


def test_every_token_has_the_label_of_its_word(encoder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder.uri)
    (row,) = token_rows(tokenizer, [{"text": "zebra,  books", "labels": "101"}], 64)
    tokens = tokenizer.convert_ids_to_tokens(row["input_ids"])
    assert tokens[0] == "[CLS]"
    assert tokens[-1] == "[SEP]"
    comma = tokens.index(",")
    expected = [-100] + [1] * (comma - 1) + [0] + [1] * (len(tokens) - comma - 2) + [-100]
    assert row["labels"] == expected
    assert row["input_ids"] == tokenizer("zebra,  books")["input_ids"]
    (cut,) = token_rows(tokenizer, [{"text": "books " * 100, "labels": "1" * 100}], 16)
    assert len(cut["input_ids"]) == len(cut["labels"]) == 16


def test_scores_of_a_hand_made_case():
    likely, labels = [[0.9, 0.6, 0.4], [0.2]], [[True, False, True], [False]]
    scores, picture = word_scores(list(map(np.array, likely)), list(map(np.array, labels)))
    assert (scores.precision, scores.recall, scores.f1) == (0.5, 0.5, 0.5)
    assert scores.f1_at_rate == 0.5  # two of the first chunk are kept: 0.9 and 0.6; none of the second
    assert scores.calibration_error == pytest.approx((0.1 + 0.6 + 0.6 + 0.2) / 4)
    assert picture.startswith(b"\x89PNG")


def test_no_pair_and_settings_of_decoders_are_refused(tmp_path, encoder, data):
    empty = write_rows(tmp_path / "empty.jsonl", [])
    with pytest.raises(UserError, match="no pair"):
        training.run(
            CONFIG,
            CompressorTrainingInputs(encoder=encoder, train=empty, test=data["test"]),
            tmp_path,
            lambda event: None,
        )
    with pytest.raises(UserError, match="for decoders"):
        training.check(CompressorTrainingConfig(batching="packed"))
