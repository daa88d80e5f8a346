"""One reward for a whole loop: an answer that comes again is not scored again, in whatever data set it stands."""

import pytest

from tasks.core.examples import make_example, make_sample, read_examples, write_rows
from tasks.problems.base import ProblemConfig
from tasks.rewards.config import RewardConfig
from tasks.rewards.scoring import Scoring
from tests.cached_run import CachedRun

QUESTIONS = [make_example(f"question {number}", "right") for number in range(3)]
COUNTING = """
from pathlib import Path

def length(prompt, completion, example):
    with Path("calls.txt").open("a") as file:
        print(completion, file=file)
    return len(completion) / 10
"""


@pytest.fixture
def scoring(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "counting_reward.py").write_text(COUNTING)
    reward = RewardConfig(by="function", function="counting_reward:length")
    return Scoring(CachedRun(tmp_path), reward, ProblemConfig(name="exact_match"))


def answers(folder, name, *texts):
    samples = [make_sample(row, text) for row, text in zip(QUESTIONS, texts, strict=False)]
    return write_rows(folder / f"{name}.jsonl", samples)


def test_an_answer_of_an_earlier_iteration_keeps_its_reward(scoring, tmp_path):
    first = scoring.score(answers(tmp_path, "first", "a", "bb", "ccc"))
    second = scoring.score(answers(tmp_path, "second", "a", "dddd", "ccc"))
    assert [row.reward for row in read_examples(second.rows)] == [0.1, 0.4, 0.3]
    assert (first.scored, second.scored, second.reused) == (3, 1, 2)
    assert (tmp_path / "calls.txt").read_text().split() == ["a", "bb", "ccc", "dddd"]


def test_the_same_run_again_asks_for_the_same_results_and_nothing_is_called(scoring, tmp_path):
    sets = [answers(tmp_path, "first", "a", "bb"), answers(tmp_path, "second", "a", "dddd")]
    before = [scoring.score(ref) for ref in sets]
    called = (tmp_path / "calls.txt").read_text()
    anew = Scoring(scoring.run, scoring.config, scoring.problem)
    assert [anew.score(ref) for ref in sets] == before
    assert (tmp_path / "calls.txt").read_text() == called


def test_answers_on_which_a_verifier_failed_are_told_with_the_last_reason(scoring, tmp_path):
    scoring.score(answers(tmp_path, "short", "a", "bb"))
    assert scoring.cautions() == []
    long = answers(tmp_path, "long", "a", "b" * 11, "c" * 12)
    scoring.score(long)
    scoring.score(long)  # found again, and counted once
    assert [text.partition(". They")[0] for text in scoring.cautions()] == [
        "The verifier failed on 2 of 4 answers, at last because it returned 1.2, not a number from 0 to 1"
    ]


def test_the_problems_own_score_is_given_anew(tmp_path):
    scoring = Scoring(CachedRun(tmp_path), RewardConfig(), ProblemConfig(name="exact_match"))
    results = [scoring.score(answers(tmp_path, name, "right", name)) for name in ("first", "second")]
    assert [(result.scored, result.reused) for result in results] == [(2, 0), (2, 0)]
