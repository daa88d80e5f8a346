"""Evaluation: figures against hand counts and scipy's bootstrap, and every prediction kept."""

import math
from collections import Counter

import numpy as np
import pytest

from tasks import evaluate
from tasks.core.errors import UserError
from tasks.core.examples import Example, make_example, read_records, write_rows
from tasks.core.generators.base import Completion
from tasks.core.references import DatasetRef
from tasks.evaluate import (
    EvaluationConfig,
    EvaluationInputs,
    Prediction,
    bootstrap_interval,
    predict,
    summarise,
)
from tasks.problems.base import ProblemConfig, Score
from tasks.problems.exact_match import ExactMatch

STORED = DatasetRef(uri="predictions.jsonl", digest="0", rows=0)


def prediction(target: str, answer: str | None, value: float | None = None) -> Prediction:
    value = float(answer == target) if value is None else value
    return Prediction(
        id="1", input="", target=target, prompt="", completion="", answer=answer, value=value, finish="stop"
    )


def summary(*predictions: Prediction, **config):
    return summarise(predictions, STORED, EvaluationConfig(**config))


def test_accuracy_and_classes_are_those_counted_by_hand():
    result = summary(
        prediction("a", "a"),
        prediction("a", "b"),
        prediction("a", "a"),
        prediction("b", "b"),
        prediction("b", None),
        prediction("b", "a"),
    )
    assert (result.rows, result.wrong, result.accuracy) == (6, 3, 0.5)
    rows = [(c.target, c.rows, c.right, c.answered) for c in result.classes]
    assert rows == [("a", 3, 2, 3), ("b", 3, 1, 2)]
    assert [(c.recall, c.precision) for c in result.classes] == [(2 / 3, 2 / 3), (1 / 3, 1 / 2)]


def test_a_class_that_is_never_answered_has_no_precision():
    result = summary(*[prediction("a", "b"), prediction("b", "b")] * 2)
    assert [(c.target, c.recall, c.precision) for c in result.classes] == [("a", 0.0, 0.0), ("b", 1.0, 0.5)]


def test_scores_between_right_and_wrong_count_in_part_and_are_wrong():
    result = summary(prediction("a", "a", 1.0), prediction("b", "b", 0.5))
    assert (result.accuracy, result.wrong) == (0.75, 1)
    assert (result.metrics()["eval/accuracy"], result.metrics()["eval/exact"]) == (0.75, 0.5)


def test_answers_that_are_right_or_wrong_have_one_share():
    figures = summary(*(prediction("a", answer) for answer in "aab")).metrics()
    assert figures["eval/exact"] == figures["eval/accuracy"] == 2 / 3


def test_answers_that_hardly_repeat_are_no_classes():
    assert summary(*(prediction(str(n), str(n)) for n in range(10))).classes == []


def test_no_row_has_no_accuracy_and_no_interval():
    result = summary()
    assert result.exact == 0.0
    assert (result.rows, result.accuracy, result.low, result.high, result.classes) == (0, 0.0, 0.0, 0.0, [])


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_agrees_with_that_of_scipy(confidence):
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).uniform(size=60)
    low, high = bootstrap_interval(values.tolist(), confidence, 10_000, seed=1)
    reference = bootstrap(
        (values,),
        np.mean,
        n_resamples=10_000,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert (low, high) == (pytest.approx(reference.low, abs=3e-3), pytest.approx(reference.high, abs=3e-3))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_values_have_an_interval_of_one_point(value):
    assert bootstrap_interval([value] * 5, 0.95, 200, seed=0) == (value, value)
    assert bootstrap_interval([value], 0.95, 200, seed=0) == (value, value)


def test_a_seed_decides_the_interval():
    values = [0.0, 1.0, 1.0, 0.3, 0.7]
    assert bootstrap_interval(values, 0.8, 100, 3) == bootstrap_interval(values, 0.8, 100, 3)
    assert bootstrap_interval(values, 0.8, 100, 3) != bootstrap_interval(values, 0.8, 100, 4)


PROBLEM = ProblemConfig(name="classification", labels=("music", "weather"))
TEST = [make_example(text, label) for text, label in (("play jazz", "music"), ("rain?", "weather"))]
TRAIN = [*TEST, make_example("play jazz now", "music"), make_example("sun " * 40, "weather")]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, tiny_ref):
    folder = tmp_path_factory.mktemp("evaluate")
    splits = {
        "test": write_rows(folder / "test.jsonl", TEST),
        "train": write_rows(folder / "train.jsonl", TRAIN),
        "none": write_rows(folder / "none.jsonl", []),
    }
    inputs = EvaluationInputs(model=tiny_ref, splits=splits, problem=PROBLEM)
    events: list[dict] = []
    result = evaluate.run(EvaluationConfig(likelihood=True), inputs, folder / "out", events.append)
    return result, events


def test_every_row_of_every_split_has_its_prediction_in_order(evaluated):
    result, events = evaluated
    records = {name: list(read_records(split.predictions)) for name, split in result.splits.items()}
    assert {name: [r["id"] for r in rows] for name, rows in records.items()} == {
        "test": [row.id for row in TEST],
        "train": [row.id for row in TRAIN],
        "none": [],
    }
    assert {name: split.rows for name, split in result.splits.items()} == {"test": 2, "train": 4, "none": 0}
    assert records["test"][0]["prompt"] == "system: Answer with one label: music, weather.\nuser: play jazz"
    assert events[-1]["progress"] == [6, 6]


def test_the_same_row_is_answered_the_same_in_two_splits(evaluated):
    first, second = (list(read_records(evaluated[0].splits[name].predictions)) for name in ("test", "train"))
    assert [r["completion"] for r in first] == [r["completion"] for r in second[:2]]


def test_the_likelihood_of_the_right_answer_is_that_of_its_tokens(evaluated, tiny_ref):
    import torch

    from tasks.core.models import end_of_turn, load_model, load_tokenizer, render
    from tasks.problems.load import load_problem

    model, tokenizer = load_model(tiny_ref), load_tokenizer(tiny_ref)
    for row, record in zip(TRAIN, read_records(evaluated[0].splits["train"].predictions), strict=True):
        prompt = render(tokenizer, load_problem(PROBLEM).prompt(row))
        answer = [*tokenizer(row.target)["input_ids"], end_of_turn(tokenizer)]
        with torch.no_grad():
            scores = torch.log_softmax(model(torch.tensor([prompt + answer])).logits[0], -1)
        total = sum(float(scores[len(prompt) - 1 + at, token]) for at, token in enumerate(answer))
        assert record["logprob"] == pytest.approx(total, abs=1e-3)
        assert math.isfinite(record["logprob"])


def test_the_counts_of_the_classes_add_up_to_the_rows(evaluated):
    for split in evaluated[0].splits.values():
        if split.classes:
            assert sum(c.rows for c in split.classes) == split.rows
            targets = Counter(r["target"] for r in read_records(split.predictions))
            assert {c.target: c.rows for c in split.classes} == dict(targets)


def test_a_student_that_knows_nothing_answers_with_a_label_unless_it_may_answer_freely(tmp_path, tiny_ref):
    splits = {"test": write_rows(tmp_path / "test.jsonl", TRAIN)}
    inputs = EvaluationInputs(model=tiny_ref, splits=splits, problem=PROBLEM)
    answers = {}
    for restricted in (True, False):
        config = EvaluationConfig(restricted=restricted)
        result = evaluate.run(config, inputs, tmp_path / str(restricted), lambda event: None)
        answers[restricted] = {r["completion"] for r in read_records(result.splits["test"].predictions)}
    assert answers[True] <= {"music", "weather"}
    assert not answers[False] & {"music", "weather"}


class Cautious(ExactMatch):
    """A user's problem that raises on an answer with an odd number of letters, and gives no number for a long one."""

    def score(self, example: Example, completion: str) -> Score:
        if len(completion) % 2:
            raise ValueError(f"{len(completion)} letters")
        return Score(value=7.0 if len(completion) > 4 else 0.5, answer=completion)


def completion(text: str) -> Completion:
    return Completion(text=text, finish="stop", prompt_tokens=1, completion_tokens=1)


def test_an_answer_that_a_users_problem_fails_on_is_wrong_and_says_why(tmp_path):
    problem = Cautious(ProblemConfig())
    answered = [predict(problem, TEST[0], completion(text)) for text in ("ab", "abc", "abcdef", "abcd")]
    assert [(one.value, one.answer, one.failure) for one in answered] == [
        (0.5, "ab", ""),
        (0.0, None, "crashed"),
        (0.0, "abcdef", "invalid"),
        (0.5, "abcd", ""),
    ]
    assert answered[1].reason.startswith("ValueError: 3 letters (test_core_evaluate.py, line")
    result = summary(*answered)
    assert (result.accuracy, result.wrong, result.failed) == (0.25, 4, 2)
    assert result.reason == "it returned 7.0, not a number from 0 to 1"
    assert result.metrics()["eval/failed"] == 2.0


class Unreadable(ExactMatch):
    """A problem that reads right answers alone, or none."""

    def score(self, example: Example, completion: str) -> Score:
        if completion != example.target or self.config.instruction == "none":
            raise KeyError("licence")
        return Score(value=1.0, answer=completion)


@pytest.mark.parametrize("instruction", ["", "none"])
def test_a_problem_that_fails_on_every_answer_is_broken_only_if_it_reads_no_right_one(
    tmp_path, tiny_ref, instruction
):
    inputs = EvaluationInputs(
        model=tiny_ref,
        splits={"test": write_rows(tmp_path / "test.jsonl", TEST)},
        problem=ProblemConfig(name=f"{__name__}:Unreadable", instruction=instruction),
    )
    config = EvaluationConfig(max_new_tokens=2)
    if instruction:
        with pytest.raises(UserError, match="failed on all of 2 answers, at last because KeyError") as caught:
            evaluate.run(config, inputs, tmp_path / "out", lambda event: None)
        assert caught.value.field == "data.problem"
        return
    with pytest.warns(UserWarning, match="failed on 2 of 2 answers, which count as wrong; .*KeyError"):
        found = evaluate.run(config, inputs, tmp_path / "out", lambda event: None).splits["test"]
    assert (found.accuracy, found.failed) == (0.0, 2)


class Endless(ExactMatch):
    """A problem whose scorer comes to no end on a model's answers."""

    def score(self, example: Example, completion: str) -> Score:
        return Score(value=0.0, answer=completion, failure="timed_out", reason="no answer within 10 s")


def test_a_problem_whose_scorer_hangs_on_every_answer_is_given_up_early(tmp_path, tiny_ref):
    rows = [make_example(f"Question {number}", "1") for number in range(12)]
    inputs = EvaluationInputs(
        model=tiny_ref,
        splits={"test": write_rows(tmp_path / "test.jsonl", rows)},
        problem=ProblemConfig(name=f"{__name__}:Endless"),
    )
    with pytest.raises(UserError, match="no score of any of the first 10: no answer within 10 s") as caught:
        evaluate.run(EvaluationConfig(max_new_tokens=2), inputs, tmp_path / "out", lambda event: None)
    assert caught.value.field == "data.problem"
