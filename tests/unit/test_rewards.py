"""Scoring: every answer once, in order, whatever the verifier does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.core.config import Config
from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import Example, make_example, make_sample, read_examples, write_rows
from tasks.core.launching import forking
from tasks.core.launching.launch import LaunchConfig
from tasks.core.models import load_tokenizer
from tasks.core.references import ModelRef
from tasks.core.stage import compute
from tasks.core.store import Store
from tasks.problems.base import ProblemConfig, Score
from tasks.problems.exact_match import ExactMatch
from tasks.rewards import stage
from tasks.rewards.answers import STAGE as ANSWERS
from tasks.rewards.answers import AnswersInputs
from tasks.rewards.config import RewardConfig
from tasks.rewards.stage import ScoreInputs
from tests.unit.launch_jobs import all_dead

NUMERIC = ProblemConfig(name="numeric")
QUESTIONS = [make_example(f"How many are {number} and 1?", str(number + 1)) for number in range(3)]


def samples(*completions):
    """Answers to the questions in turn."""
    return [make_sample(QUESTIONS[at % 3], text) for at, text in enumerate(completions)]


class Touchy(ExactMatch):
    """A problem of a user's that reads numbers alone."""

    def score(self, example: Example, completion: str) -> Score:
        return Score(value=float(int(completion) == int(example.target)), answer=completion)


class Faulty(ExactMatch):
    """One that reads nothing."""

    def score(self, example: Example, completion: str) -> Score:
        raise KeyError("licence")


def score(
    folder: Path,
    rows,
    known=(),
    reward_model=None,
    report=lambda event: None,
    problem=NUMERIC,
    **config,
):
    if "function" in config:
        config = {"by": "function"} | config | {"function": f"tests.unit.verifiers:{config['function']}"}
    inputs = ScoreInputs(
        rows=write_rows(folder / "rows.jsonl", rows),
        problem=problem,
        known=[write_rows(folder / f"known-{at}.jsonl", part) for at, part in enumerate(known)],
        reward_model=reward_model,
    )
    return stage.run(RewardConfig(**config), inputs, folder / "out", report)


def rewards(result):
    return [row.reward for row in read_examples(result.rows)]


def test_the_rows_come_back_in_order_with_nothing_but_the_reward_added(tmp_path):
    rows = [*samples("1", "3", "3", "It is 2", ""), QUESTIONS[0]]
    result = score(tmp_path, rows)
    assert rewards(result) == [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert [row.model_copy(update={"reward": None}) for row in read_examples(result.rows)] == rows
    assert (result.scored, result.reused, result.failed, result.constant) == (6, 0, {}, False)
    assert result.mean == pytest.approx(0.5)
    assert result.metrics() == {"reward/mean": pytest.approx(0.5), "reward/failed": 0.0}


def test_a_row_without_an_answer_is_scored_by_the_right_one_and_gets_none(tmp_path):
    result = score(tmp_path, QUESTIONS)
    assert [(row.completion, row.reward) for row in read_examples(result.rows)] == [(None, 1.0)] * 3


@pytest.mark.parametrize("by", ["problem", "function", "model"])
def test_no_row_is_no_reward(tmp_path, tiny_ref, by):
    config = {"function": "verify"} if by == "function" else {"by": by}
    result = score(tmp_path, [], reward_model=tiny_ref, **config)
    assert (result.rows.rows, result.scored, result.mean, result.constant) == (0, 0, 0.0, False)


def test_one_row_is_enough(tmp_path):
    assert rewards(score(tmp_path, samples("d"), function="verify")) == [0.3]


FAILING = {
    "hang": "timed_out",
    "hang in C": "timed_out",
    "os._exit": "crashed",
    "segfault": "crashed",
    "raise": "crashed",
    "nan": "invalid",
    "inf": "invalid",
    "text": "invalid",
    "none": "invalid",
    "seven": "invalid",
    "minus": "invalid",
    "list": "invalid",
    "object": "invalid",
    "huge": "invalid",
}


def test_an_answer_on_which_the_function_fails_is_worth_nothing_and_the_others_what_it_says(tmp_path):
    rows = [row for word in FAILING for row in samples(word, "h")]
    events = []
    result = score(tmp_path, rows, function="verify", time_limit_s=0.5, report=events.append)
    assert rewards(result) == [0.0, 0.7] * len(FAILING)
    assert result.failed == {"timed_out": 2, "crashed": 3, "invalid": 9}
    assert result.reason.startswith("it returned 1000000")
    assert len(result.reason) < 200
    # "h" answers the same question every time: one sample.
    assert result.scored == len(FAILING) + 1
    assert events[-1] == {"progress": [len(FAILING) + 1] * 2, "text": "scored"}


@pytest.mark.parametrize(
    ("word", "reward"), [("true", 1.0), ("numpy", 0.5), ("rounding", 1.0), ("print", 0.5)]
)
def test_numbers_of_every_kind_are_rewards(tmp_path, word, reward):
    result = score(tmp_path, samples(word, "a"), function="verify")
    assert (rewards(result), result.failed) == ([reward, 0.0], {})


def test_the_same_rows_give_the_same_bytes(tmp_path):
    rows = samples("c", "raise", "j", "nan", "c")
    first, second = (score(tmp_path / name, rows, function="verify") for name in ("one", "two"))
    assert first.rows.digest == second.rows.digest
    assert first.model_copy(update={"rows": None}) == second.model_copy(update={"rows": None})


def test_every_answer_is_scored_once_and_known_ones_never(tmp_path, monkeypatch):
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    one, two, three, four = samples("one", "twoo", "three", "")
    known = [[two.model_copy(update={"reward": 0.123}), three], [QUESTIONS[1]]]
    result = score(tmp_path, [one, two, one, three, four, one, two], known, function="note")
    assert rewards(result) == [0.3, 0.123, 0.3, 0.5, 0.0, 0.3, 0.123]
    assert (result.scored, result.reused) == (3, 2)
    system = "system: Solve the problem step by step. End with #### and the number."
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"{system + chr(10) + 'user: ' + row.input!r} {row.completion!r} {row.id} {row.target!r}"
        for row in (one, three, four)
    ]


@pytest.mark.parametrize("rows", [["raise"], ["raise", "nan", "raise"], ["raise", "raise", "raise", "raise"]])
def test_a_function_that_always_fails_is_broken_and_says_why(tmp_path, rows):
    with pytest.raises(UserError) as caught:
        score(tmp_path, samples(*rows), function="verify")
    assert caught.value.field == "reward.function"
    assert "ZeroDivisionError: division by zero (verifiers.py, line" in caught.value.fault


def test_a_last_shard_whose_only_new_answer_fails_is_no_broken_function(tmp_path):
    first, second = samples("a", "raise")
    result = score(tmp_path, [first, second], [[first.model_copy(update={"reward": 0.4})]], function="verify")
    assert rewards(result) == [0.4, 0.0]
    assert result.failed == {"crashed": 1}


def test_a_function_that_hangs_on_everything_is_given_up_early(tmp_path):
    rows = [make_sample(make_example(f"Question {number}", "1"), "hang") for number in range(500)]
    with pytest.raises(UserError, match=r"no answer within 0\.1 s to any of the first 10") as caught:
        score(tmp_path, rows, function="verify", time_limit_s=0.1)
    assert caught.value.field == "reward.time_limit_s"


@pytest.mark.parametrize(
    ("words", "given_up"),
    [
        (["a", "hang", "hang", "b", "hang", "hang", "c"], False),
        (["a", "hang", "hang", "b", "hang", "hang", "hang", "c"], True),
    ],
)
def test_a_function_that_comes_to_hang_is_given_up_after_so_many_in_a_row(
    tmp_path, monkeypatch, words, given_up
):
    monkeypatch.setattr("tasks.problems.scoring.MOST_IN_A_ROW", 3)
    rows = [make_sample(make_example(f"Question {at}", "1"), word) for at, word in enumerate(words)]
    if not given_up:
        assert score(tmp_path, rows, function="verify", time_limit_s=0.5).failed == {"timed_out": 4}
        return
    with pytest.raises(UserError, match=r"within 0\.5 s to 3 in a row, up to number 7") as caught:
        score(tmp_path, rows, function="verify", time_limit_s=0.5)
    assert caught.value.field == "reward.time_limit_s"


def test_an_answer_that_a_users_problem_raises_on_is_a_failure_and_the_others_are_scored(tmp_path):
    problem = ProblemConfig(name=f"{__name__}:Touchy")
    result = score(tmp_path, samples("1", "3", "three"), problem=problem)
    assert (rewards(result), result.failed) == ([1.0, 0.0, 0.0], {"crashed": 1})
    assert result.reason.startswith("ValueError: invalid literal for int()")
    assert "(test_rewards.py, line" in result.reason


def test_a_problem_that_reads_no_answer_of_a_policy_is_broken_only_if_it_reads_no_right_one(tmp_path):
    odd = samples("one", "two", "three")
    result = score(tmp_path, odd, problem=ProblemConfig(name=f"{__name__}:Touchy"))
    assert (rewards(result), result.failed) == ([0.0] * 3, {"crashed": 3})
    faulty = ProblemConfig(name=f"{__name__}:Faulty")
    with pytest.raises(UserError, match="on all of 3 answers, at last because KeyError: 'licence'") as caught:
        score(tmp_path, odd, problem=faulty)
    assert caught.value.field == "data.problem"


class Hanging(ExactMatch):
    """One whose scorer comes to no end, but on the answer "1"."""

    def score(self, example: Example, completion: str) -> Score:
        if completion == "1":
            return Score(value=1.0, answer=completion)
        return Score(value=0.0, answer=completion, failure="timed_out", reason="no answer within 10 s")


@pytest.mark.parametrize(
    ("words", "which"),
    [
        ("a" * 10, "any of the first 10"),
        ("1" + "a" * 9, None),
        ("1aaaa1" + "a" * 50, "50 in a row, up to number 56"),
    ],
)
def test_a_problem_whose_scorer_hangs_is_given_up(tmp_path, words, which):
    rows = [make_sample(make_example(f"Question {at}", "1"), word) for at, word in enumerate(words)]
    problem = ProblemConfig(name=f"{__name__}:Hanging")
    if which is None:
        assert score(tmp_path, rows, problem=problem).failed == {"timed_out": 9}
        return
    with pytest.raises(UserError, match=f"no score of {which}: no answer within 10 s") as caught:
        score(tmp_path, rows, problem=problem)
    assert caught.value.field == "data.problem"


def test_a_function_that_cannot_be_started_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be started in a process of its own") as caught:
        score(tmp_path, samples("a"), function="verify", memory_mb=1)
    assert caught.value.field == "reward.function"


def reward_model(folder: Path, tiny_ref: ModelRef, change=lambda head: None) -> ModelRef:
    """A reward model with a random head, or a changed one."""
    import torch
    from transformers import set_seed

    from tasks.reward_model.classifier import load_classifier
    from tasks.reward_model.normalisation import Normalisation
    from tasks.reward_model.tokens import padding_token

    tokenizer = load_tokenizer(tiny_ref)
    set_seed(0)
    model = load_classifier(tiny_ref, precision="float32", padding=padding_token(tokenizer))
    with torch.no_grad():
        change(model.score.weight)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Normalisation(low=-1, high=1, mean=0, std=1, answers=2, reference="held-out pairs").save(folder)
    return ModelRef(uri=str(folder), digest=folder_digest(folder))


def test_a_reward_model_scores_what_has_no_reward_yet(tmp_path, tiny_ref):
    from tasks.problems.load import load_problem
    from tasks.reward_model.scoring import load_reward_model

    ref = reward_model(tmp_path / "model", tiny_ref)
    rows = [*samples("1", "nobody knows", "", "1"), QUESTIONS[2]]  # the fourth is the first again
    known = [[rows[1].model_copy(update={"reward": 0.75})]]
    result = score(tmp_path, rows, known, by="model", reward_model=ref, batch_size=2)
    prompts = [load_problem(NUMERIC).prompt(row) for row in rows]
    expected = load_reward_model(ref).score(prompts, ["1", "nobody knows", "", "1", "3"])
    expected[1] = 0.75
    assert rewards(result) == pytest.approx(expected, abs=1e-5)
    assert len(set(rewards(result))) == 4
    assert (result.scored, result.reused, result.constant) == (3, 1, False)


def test_a_reward_model_that_gives_all_answers_the_same_is_noticed(tmp_path, tiny_ref):
    ref = reward_model(tmp_path / "model", tiny_ref, change=lambda head: head.zero_())
    assert score(tmp_path, samples("1", "2", "3"), by="model", reward_model=ref).constant
    assert not score(tmp_path, samples("1"), by="model", reward_model=ref).constant
    assert not score(tmp_path, samples("1", "2", "3"), by="problem").constant


def test_a_reward_model_that_gives_no_number_is_refused_by_name(tmp_path, tiny_ref):
    ref = reward_model(tmp_path / "broken", tiny_ref, change=lambda head: head.fill_(float("nan")))
    with pytest.raises(UserError, match=r"broken.* gives nan for"):
        score(tmp_path, samples("1", "2"), by="model", reward_model=ref)


def test_scoring_by_a_model_needs_one(tmp_path):
    with pytest.raises(UserError, match="no reward model") as caught:
        score(tmp_path, samples("1"), by="model")
    assert caught.value.field == "reward.by"


def test_in_a_process_of_its_own_the_result_is_stored_and_not_computed_again(tmp_path):
    forking.warm_up(preload=())
    store = Store(str(tmp_path / "store"))
    inputs = ScoreInputs(rows=write_rows(tmp_path / "rows.jsonl", samples("b", "hang", "j")), problem=NUMERIC)
    config = RewardConfig(by="function", function="tests.unit.verifiers:verify", time_limit_s=0.5)
    events = []
    manifest = compute(stage.STAGE, config, inputs, store, LaunchConfig(), events.append)
    result = stage.ScoreResult.model_validate(manifest.result)
    assert rewards(result) == [0.1, 0.0, 0.9]
    assert result.failed == {"timed_out": 1}
    assert any("progress" in event for event in events)
    again = []
    assert compute(stage.STAGE, config, inputs, store, LaunchConfig(), again.append).result == manifest.result
    assert again == []


SCORING = """
import sys
from pathlib import Path
from tasks.core.references import DatasetRef
from tasks.problems.base import ProblemConfig
from tasks.rewards import stage
inputs = stage.ScoreInputs(rows=DatasetRef.model_validate_json(sys.argv[1]), problem=ProblemConfig(name="numeric"))
config = stage.RewardConfig(by="function", function="tests.unit.verifiers:leave_running", time_limit_s=600)
stage.run(config, inputs, Path(sys.argv[2]), lambda event: None)
"""


def test_when_the_scoring_process_is_killed_nothing_it_started_lives_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    monkeypatch.setenv("PYTHONPATH", forking.python_path())
    rows = write_rows(tmp_path / "rows.jsonl", samples("hang"))
    scoring = subprocess.Popen([sys.executable, "-c", SCORING, rows.model_dump_json(), str(tmp_path / "out")])
    deadline = time.monotonic() + 60
    while not (tmp_path / "pids").exists():
        assert time.monotonic() < deadline
        assert scoring.poll() is None
        time.sleep(0.05)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    time.sleep(0.5)  # into the regular expression, which lets no thread of its process run
    assert not all_dead(pids, patience_s=0)
    os.kill(scoring.pid, signal.SIGKILL)
    scoring.wait()
    assert all_dead(pids)


def test_the_answers_of_an_evaluation_become_samples(tmp_path):
    predictions = [
        {"id": row.id, "completion": text, "finish": finish}
        for row, text, finish in zip(QUESTIONS, ["1", "", "so"], ["stop", "stop", "length"], strict=True)
    ]
    inputs = AnswersInputs(
        predictions=write_rows(tmp_path / "predictions.jsonl", predictions),
        questions=write_rows(tmp_path / "questions.jsonl", QUESTIONS),
    )
    found = read_examples(ANSWERS.run(Config(), inputs, tmp_path / "out", lambda event: None).samples)
    assert found == [
        make_sample(row, text, cut=cut)
        for row, text, cut in zip(QUESTIONS, ["1", "", "so"], [False, False, True], strict=True)
    ]
    shuffled = inputs.model_copy(update={"questions": write_rows(tmp_path / "q.jsonl", QUESTIONS[::-1])})
    with pytest.raises(ValueError, match="other questions"):
        ANSWERS.run(Config(), shuffled, tmp_path / "out", lambda event: None)
