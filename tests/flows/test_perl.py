"""PERL with a tiny model: preferences to reward model and judge, PPO on one base, both policies side by side."""

import json
from pathlib import Path

import pytest

from flows.__main__ import main
from tests.flows.test_rest_configs import write_pairs
from tests.unit.reward_pairs import TEST, train_reward
from tests.unit.small_grow import silent_model
from tests.unit.test_ppo_other_reward import build_other_model

QUICK = [
    "--config=deployments/configs/perl-hh-cpu.yaml",
    "--training.max_steps=2",
    "--training.batch_size=4",
    "--reward_model.max_steps=3",
    "--reward_model.learning_rate=0.01",
    "--ppo.steps=3",
    "--ppo.batch_size=4",
    "--ppo.minibatch_size=2",
    "--ppo.max_new_tokens=6",
    "--ppo.policy_learning_rate=0.01",
    "--evaluation.max_new_tokens=6",
    "--data.seed_rows=12",
]


@pytest.fixture
def perl(prefect_server, tiny_model, tmp_path, capsys):
    pairs = write_pairs(tmp_path / "pairs.jsonl", range(40))
    test = write_pairs(tmp_path / "test.jsonl", range(50, 55))

    def run(*flags: str) -> tuple[int, dict, str]:
        places = [f"--policy.model={tiny_model}", f"--store={tmp_path}/store", f"--preferences.train={pairs}"]
        places += [f"--data.train={pairs}", f"--data.test={test}"]
        code = main(["perl", *QUICK, *places, *flags])
        captured = capsys.readouterr()
        return code, json.loads(captured.out.splitlines()[-1]) if code == 0 else {}, captured.err

    return run


def test_one_base_plays_every_role_and_a_rerun_computes_nothing(perl, tmp_path):
    code, result, error = perl()
    assert code == 0, error
    figures = result["metrics"]
    assert figures["train/steps"] == 3
    assert figures["val/episodes"] == 4
    assert 0 <= figures["held_out/judged_win_rate"] <= 1
    assert {"objective/kl", "policy/clipfrac_avg", "val/ratio", "reward/test", "judge/accuracy"} <= set(
        figures
    )
    start = result["baselines"]["warm start"]
    assert start["train/steps"] == 2
    page = Path(result["places"]["report"]).read_text(encoding="utf-8")
    for words in ("Policy and start on held-out prompts", "Reward and KL by step", "Lost by the policy"):
        assert words in page
    merged = result["model"][
        "base"
    ]  # the policy's adapter lies on the fine-tuned model, not on the one before it
    assert merged["base"] is None
    assert "merge" in merged["uri"]

    code, again, error = perl()
    assert code == 0, error
    assert again["metrics"] == figures
    assert "ppo: already done" in error
    assert "ppo: 1/3" not in error


def test_a_verifier_needs_no_preferences(perl):
    code, result, error = perl(
        "--reward.by=problem", "--sft=false", "--preferences.train=", "--ppo.algorithm=reinforce"
    )
    assert code == 0, error
    assert "held_out/judged_win_rate" not in result["metrics"]
    assert result["metrics"]["policy/optimizer_steps"] == 1
    assert set(result["baselines"]) == {"base model"}


def test_a_reward_model_of_another_architecture_that_is_there_already(perl, tmp_path):
    """Nothing is learned from preferences; when its content changes, the policy is trained again."""
    folder = tmp_path / "reward"
    ready = Path(train_reward(folder, build_other_model(folder / "gpt2"), test=TEST, method="full").model.uri)
    flags = ["--sft=false", "--preferences.train=", "--ppo.algorithm=reinforce", f"--reward.model={ready}"]
    code, result, error = perl(*flags)
    assert code == 0, error
    assert "reward model" not in error
    assert "judge" not in error
    assert 0 < result["metrics"]["reward/mean"] < 1
    assert result["metrics"]["reward/std"] > 0
    moved = ready.rename(tmp_path / "elsewhere")
    flags[-1] = f"--reward.model={moved}"
    code, again, error = perl(*flags)
    assert code == 0, error
    assert "ppo: already done" in error
    facts = json.loads((moved / "reward.json").read_text())
    (moved / "reward.json").write_text(json.dumps(facts | {"low": facts["low"] - 1}))
    code, other, error = perl(*flags)
    assert code == 0, error
    assert "ppo: already done" not in error
    assert other["metrics"]["reward/mean"] != again["metrics"]["reward/mean"]


def test_a_policy_that_says_nothing_ends_with_a_report_that_says_so(perl, tiny_model, tmp_path):
    silent = silent_model(tmp_path / "silent", tiny_model)
    flags = ["--reward.by=problem", "--sft=false", "--preferences.train=", "--ppo.algorithm=reinforce"]
    code, result, error = perl(*flags, f"--policy.model={silent.uri}", "--ppo.batch_size=16")
    assert code == 0, error
    figures = result["metrics"]
    assert (figures["train/steps"], figures["held_out/words"], figures["held_out/words_start"]) == (1, 0, 0)
    page = Path(result["places"]["report"]).read_text(encoding="utf-8")
    assert "the policy has collapsed: 100% of the last 16 responses" in page


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--preferences.test_fraction=0", "preferences.test_fraction"),
        ("--ppo.minibatch_size=99", "ppo.minibatch_size"),
        ("--launch.processes=3", "ppo.batch_size"),
        ("--ppo.deepspeed=nowhere.json", "ppo.deepspeed"),
        ("--roles.adapter.dropout=0.1", "roles.adapter.dropout"),
        ("--preferences.train=", "preferences.train"),
        ("--evaluation.engine.compressor.model=nowhere/at-all", "evaluation.engine.compressor.model"),
        (
            '--reward={"by": "endpoint", "endpoint": {"url": "http://127.0.0.1:9"}}',
            "127.0.0.1:9: it cannot be reached",
        ),
    ],
)
def test_mistakes_end_before_a_model_is_loaded(perl, flag, words, tmp_path):
    code, _, error = perl(flag)
    assert code == 2
    assert not list((tmp_path / "store").glob("*/*")), "nothing may be computed"
    assert words in error
    assert "Traceback" not in error
