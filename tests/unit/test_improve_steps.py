"""The Improve steps of an iteration: where each starts, at what rate, and when the loop goes back one.

Rows are chosen by the real stage; what training makes of a policy is written down in its name, and what its answers are
worth is given.
"""

from dataclasses import dataclass, field

import pytest

from tasks.core.examples import make_example, make_sample, read_examples, write_rows
from tasks.core.models import load_tokenizer
from tasks.core.references import ModelRef
from tasks.evaluate import EvaluationConfig
from tasks.improve.config import ImproveConfig, planned
from tasks.improve.steps import Improvement, Policy
from tasks.problems.base import ProblemConfig
from tasks.rewards.config import RewardConfig
from tasks.rewards.scoring import Scoring
from tasks.sft.config import TrainingConfig
from tasks.sft.stage import TrainingResult
from tasks.student import Student
from tests.cached_run import CachedRun

QUESTIONS = [make_example(f"question {number}", "right") for number in range(4)]
REWARDS = (0.2, 0.6, 0.9, 1.0)
SAMPLES = [
    make_sample(row, "answer").model_copy(update={"reward": reward})
    for row, reward in zip(QUESTIONS, REWARDS, strict=True)
]
PROBLEM = ProblemConfig(name="exact_match")
TRAINING = TrainingConfig(learning_rate=0.08)


def named(name: str) -> ModelRef:
    return ModelRef(uri=name, digest=name)


@dataclass(frozen=True)
class WrittenDown(Student):
    """Trains by writing down what the training was: where it began, its rate, its weighting, how many rows."""

    def train(self, rows, *, start=None, steps=0, seed=None, label="train"):
        how = f"{self.training.learning_rate:g} {self.training.weighting} {rows.rows}"
        return TrainingResult(model=named(f"{start.uri} > {how}"), steps=10, rows=rows.rows, loss=0.5)


@dataclass(frozen=True)
class Given(Improvement):
    """The rewards on held-out rows, by the order in which policies are measured."""

    worth: list[float | None] = field(default_factory=list)

    def held_out(self, policy, name):
        return self.worth.pop(0)


@pytest.fixture
def improve(tmp_path):
    def improve(worth, *, useless="", originals=False, base=named("base"), **settings):  # noqa: B008
        run = CachedRun(tmp_path)
        student = WrittenDown(run, base, PROBLEM, TRAINING, EvaluationConfig())
        config = planned(ImproveConfig(**{"levels": (0.1, 0.5, 0.95)} | settings), "rest")
        scoring = Scoring(run, RewardConfig(), PROBLEM)
        starts = {"base": Policy(named("base")), "warm": Policy(named("warm"), 5)}
        known = [row.model_copy(update={"reward": 1.0}) for row in QUESTIONS[:2]]
        mixed = write_rows(tmp_path / "train.jsonl", known) if originals else None
        samples = write_rows(tmp_path / "samples.jsonl", SAMPLES)
        steps = Given(student, config, scoring, starts, mixed, worth=list(worth))
        return steps.improve(Policy(named("now"), 100, 0.3), samples, asked=5, useless=useless)

    return improve


def test_steps_go_on_from_one_another_at_falling_rates_on_rows_above_rising_levels(improve):
    done = improve([0.4, 0.5, 0.6])
    assert done.policy == Policy(named("now > 0.08 equal 4 > 0.04 equal 3 > 0.02 equal 1"), 130, 0.6)
    assert (done.stopped, len(done.trained), [one.taken for one in done.selections]) == ("", 3, [True] * 3)
    assert [row.reward for row in read_examples(done.kept)] == [1.0]
    assert done.metrics()["train/steps"] == 30


def test_a_step_that_does_not_raise_the_reward_is_gone_back_on_and_the_last(improve):
    done = improve([0.4, 0.4])  # equal is not risen
    assert done.policy == Policy(named("now > 0.08 equal 4"), 110, 0.4)
    assert done.stopped == "the held-out reward did not rise at reward above 0.5"
    assert [one.taken for one in done.selections] == [True, False]
    assert done.kept.rows == 4


def test_a_first_step_that_brings_nothing_leaves_the_policy_as_it_was(improve):
    done = improve([0.2])
    assert (done.policy, done.kept, done.trained) == (Policy(named("now"), 100, 0.3), None, [])


def test_without_the_stop_or_without_held_out_rows_every_step_is_taken(improve):
    assert len(improve([0.2, 0.1, 0.0], stop_on_reward=False).trained) == 3
    assert len(improve([None, None, None]).trained) == 3


@pytest.mark.parametrize(
    ("start", "name", "steps"),
    [("base", "base > 0.02 equal 1", 10), ("warm", "warm > 0.02 equal 1", 15)],
)
def test_steps_may_all_start_from_one_place(improve, start, name, steps):
    done = improve([0.4, 0.5, 0.6], start=start)
    assert (done.policy.model, done.policy.steps) == (named(name), steps)


def test_rate_and_weighting_are_the_steps_own(improve):
    done = improve([0.4, 0.5, 0.6], learning_rate=0.5, decay=0.1, loss="reward_weighted")
    assert done.policy.model.uri == "now > 0.5 reward 4 > 0.05 reward 3 > 0.005 reward 1"


def test_a_level_that_nothing_passes_ends_the_iteration(improve):
    none = improve([], levels=(3.0, 2.0, 1.0), by="top_n", floor=1.0)
    assert (none.stopped, none.trained) == ("no sample passes best 3", [])


def test_rows_that_the_training_would_leave_out_are_left_out_before_and_none_ends_the_iteration(
    improve, tiny_ref, monkeypatch
):
    def within(length):
        training = TRAINING.model_copy(update={"too_long": "drop", "max_length": length})
        monkeypatch.setattr(f"{__name__}.TRAINING", training)
        return improve([0.4, 0.5, 0.6], base=tiny_ref)

    tokens = len(load_tokenizer(tiny_ref)("answer", add_special_tokens=False)["input_ids"]) + 1  # and the end
    assert within(tokens + 1).kept.rows == 1
    none = within(tokens)
    assert (none.stopped, none.policy.model.uri) == ("no sample that fits passes reward above 0.1", "now")
    assert none.selections[0].rejected == {"long": 4}


def test_useless_samples_are_looked_at_and_not_trained_on(improve):
    done = improve([], useless="all the same")
    assert (done.policy.model.uri, done.stopped, len(done.selections)) == ("now", "all the same", 1)
    assert done.metrics()["reward/mean"] == pytest.approx(sum(REWARDS) / 4)


def test_training_rows_are_trained_on_and_counted_apart(improve):
    done = improve([0.4, 0.5, 0.6], originals=True)
    assert done.policy.model.uri == "now > 0.08 equal 6 > 0.04 equal 5 > 0.02 equal 3"
    figures = done.metrics()
    assert (figures["data/kept"], figures["data/wrong"]) == (
        3,
        4,
    )  # of the last step: two rows, one sample of five prompts
    assert figures["reward/mean"] == pytest.approx(sum(REWARDS) / 4)
