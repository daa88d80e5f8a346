"""The ReST configurations run with a tiny policy: sums, GSM8K, and a reward learned from preferences."""

import json
from pathlib import Path

import pytest

from flows.__main__ import main
from tests.flows.loops import rows_of

QUICK = [
    "--iterations=1",
    "--training.max_steps=2",
    "--training.batch_size=4",
    "--evaluation.max_new_tokens=6",
    "--grow.samples=3",
    "--grow.max_new_tokens=6",
]


@pytest.fixture
def run(prefect_server, tiny_model, tmp_path, capsys):
    def run(config: str, *flags: str):
        places = [f"--policy.model={tiny_model}", f"--store={tmp_path}/store"]
        code = main(["rest", f"--config=deployments/configs/{config}.yaml", *places, *QUICK, *flags])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out.splitlines()[-1])

    return run


def sums(size: int, seed: int) -> str:
    return f"gym:chain_sum?size={size}&seed={seed}&min_terms=2&max_terms=2&min_digits=1&max_digits=1"


def test_sums_are_made_and_checked_by_reasoning_gym(run):
    # An untrained policy is never right, but a right sum among the training rows is worth 1: with them mixed in, and
    # the floor of partial credit, an Improve step has rows to train on.
    result = run(
        "rest-arithmetic",
        f"--data.train={sums(6, 0)}",
        f"--data.validation={sums(4, 1000)}",
        f"--data.test={sums(4, 2000)}",
        f"--prompts={sums(5, 3000)}",
        "--improve.mix_data=yes",
        "--improve.stop_on_reward=false",
    )
    assert result["metrics"]["data/generated"] == 15
    rows = rows_of(result)
    assert all(row.reward == 1.0 and row.facts["dataset"] == "chain_sum" for row in rows)
    assert len([row for row in rows if row.completion is None]) == 6


def write_word_problems(path, numbers):
    rows = (
        {"question": f"Ann has {n} nuts and finds 2. How many?", "answer": f"{n} + 2 #### {n + 2}"}
        for n in numbers
    )
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_gsm8k_without_a_right_sample_ends_with_a_reason(run, tmp_path):
    train, test = (
        write_word_problems(tmp_path / f"{name}.jsonl", numbers)
        for name, numbers in (("train", range(20)), ("test", range(30, 34)))
    )
    result = run(
        "rest-em-gsm8k",
        f"--data.train={train}",
        f"--data.test={test}",
        "--grow.engine.engine=transformers",
        "--evaluation.engine.engine=transformers",
        "--launch.processes=1",
    )
    assert result["stopped"] == "no sample passes reward above 0.99"
    assert (result["metrics"]["data/kept"], result["metrics"]["data/wrong"]) == (0, 19)
    assert result["metrics"]["eval/accuracy"] == result["baselines"]["warm start"]["eval/accuracy"]


def write_pairs(path, numbers):
    rows = (
        {
            "chosen": f"\n\nHuman: What comes after {n}?\n\nAssistant: It is {n + 1}, I think.",
            "rejected": f"\n\nHuman: What comes after {n}?\n\nAssistant: Go away {n}!",
        }
        for n in numbers
    )
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def with_a_fault(pairs):
    """The same pairs, and one whose sides are equal."""
    path = pairs.with_name("preferences.jsonl")
    said = "\n\nHuman: Which?\n\nAssistant: This."
    path.write_text(pairs.read_text() + json.dumps({"chosen": said, "rejected": said}) + "\n")
    return path


def test_a_reward_model_learned_from_transcripts_rewards_the_samples(run, tiny_model, tmp_path):
    pairs, test = (
        write_pairs(tmp_path / "pairs.jsonl", range(24)),
        write_pairs(tmp_path / "test.jsonl", range(50, 53)),
    )
    result = run(
        "rest-hh",
        f"--preferences.train={with_a_fault(pairs)}",
        f"--data.train={pairs}",
        f"--data.test={test}",
        f"--reward_base.model={tiny_model}",
        "--reward_model.max_steps=4",
        "--reward_model.learning_rate=0.01",
        "--improve.levels=[50]",
        "--improve.stop_on_reward=false",
        "--improve.keep_cut=true",  # an untrained policy does not end its answers
    )
    rows = rows_of(result)
    samples = [row for row in rows if row.completion is not None]
    assert samples
    assert all(0 <= row.reward <= 1 for row in rows)
    assert len({row.reward for row in rows}) > 1
    assert all(
        row.input.endswith("?") and row.target.startswith("It is") for row in rows
    )  # dialogue and last reply
    assert 0 <= result["metrics"]["reward/test"] <= 1
    figures = result["metrics"]
    low, accuracy, high = (figures[f"reward_model/accuracy{end}"] for end in ("_low", "", "_high"))
    assert 0 <= low <= accuracy <= high <= 1
    page = Path(result["places"]["report"]).read_text()
    assert "What was learned from preferences" in page
    assert "Calibration on held-out pairs" in page
    assert "Preference rows that were left out: 1 no pair" in page
