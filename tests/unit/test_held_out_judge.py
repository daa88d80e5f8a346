"""The judge of held-out answers is asked: its figures are no copy of the reward's."""

from pathlib import Path

import pytest

from tasks.core.examples import make_example, read_records, write_rows
from tasks.core.references import ModelRef
from tasks.ppo.config import PPOConfig
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem
from tasks.reward_model.scoring import load_reward_model
from tasks.rewards.config import RewardConfig
from tasks.rewards.scoring import Scoring
from tasks.side_by_side.held_out import compare_on_held_out
from tests.cached_run import CachedRun
from tests.unit.reward_pairs import TEST, TRAIN, train_reward

PROBLEM = ProblemConfig(name="exact_match")
PROMPTS = [make_example(f"What is number {number} in Paris?", "one") for number in range(4)]


def test_rewards_and_verdicts_are_each_of_their_own_model(tmp_path: Path, tiny_ref: ModelRef):
    turned = [pair.model_copy(update={"chosen": pair.rejected, "rejected": pair.chosen}) for pair in TRAIN]
    reward = train_reward(tmp_path / "reward", tiny_ref, test=TEST).model
    judge = train_reward(tmp_path / "judge", tiny_ref, turned, test=TEST).model
    scoring = Scoring(CachedRun(tmp_path), RewardConfig(by="model"), PROBLEM, reward)
    prompts = write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    found = compare_on_held_out(scoring, judge, prompts, tiny_ref, tiny_ref, PPOConfig(max_new_tokens=6))
    rows = {record["id"]: record for record in read_records(found.rows)}
    assert rows.keys() == {prompt.id for prompt in PROMPTS}
    conversations = [load_problem(PROBLEM).prompt(prompt) for prompt in PROMPTS]
    values = {}
    for name, model in (("reward", reward), ("judged", judge)):
        for side in ("start", "policy"):
            answers = [rows[prompt.id][side] for prompt in PROMPTS]
            values[side, name] = [rows[prompt.id][f"{side}_{name}"] for prompt in PROMPTS]
            alone = load_reward_model(model).score(conversations, answers)
            assert values[side, name] == pytest.approx(alone, abs=1e-4)
    assert values["start", "judged"] != pytest.approx(values["start", "reward"], abs=1e-3)
    assert found.judged is not None
    assert found.wins.ties == found.judged.ties == 4  # both sides are one model, with one seed


def test_without_a_judge_there_are_no_verdicts(tmp_path: Path, tiny_ref: ModelRef):
    scoring = Scoring(CachedRun(tmp_path), RewardConfig(), PROBLEM)
    prompts = write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    found = compare_on_held_out(scoring, None, prompts, tiny_ref, tiny_ref, PPOConfig(max_new_tokens=6))
    assert found.judged is None
    assert not any(name.endswith("_judged") for record in read_records(found.rows) for name in record)
