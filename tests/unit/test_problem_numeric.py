"""Numeric answers: which number a text ends in, exactly."""

import json
import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.examples import make_example
from tasks.problems.base import ProblemConfig
from tasks.problems.numeric import Numeric, numbers, read_answer

SHARED = Path(os.environ.get("LOOPWRIGHT_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
PROBLEM = Numeric(ProblemConfig(name="numeric"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("42", 42),
        ("-5", -5),
        ("−5", -5),
        ("It is –5 degrees", -5),
        ("-$5", -5),
        ("$-5", -5),
        ("(-5)", -5),
        ("12-5", 5),
        ("12 - 5 = 7", 7),
        ("5 - 12 = -7", -7),
        ("(3)-5", 5),
        ("$1,200.50", Fraction("1200.5")),
        ("1,234,567", 1234567),
        ("1,2345", 2345),
        ("choose 1, 2 or 3", 3),
        ("3 km", 3),
        ("3km", 3),
        ("50%", 50),
        (".5", Fraction(1, 2)),
        ("0.5", Fraction(1, 2)),
        ("5.", 5),
        ("3/4", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        ("12 / 4 = 3", 3),
        ("1 1/2", Fraction(3, 2)),
        ("-1 1/2", Fraction(-3, 2)),
        ("1¾ cups", Fraction(7, 4)),
        ("½", Fraction(1, 2)),
        ("x = 7 and H2O", 7),
        ("答案是5个", 5),
        ("\\boxed{42}", 42),
        ("no number", None),
        ("", None),
        ("9" * 5000, None),
        ("#### 42", 42),
        ("Step 1: 3 + 4\n#### 7\nStep 9", 7),
        ("#### 7\n#### 8", 7),
        ("####\n7", 7),
        ("7 apples\n#### none", None),
        ("#### -1,000", -1000),
        ("The answer is 5 because 3 + 2", 5),
        ("The answer is: $1,000.", 1000),
        ("The answer is 3 + 4 = 7", 7),
        ("The answer is 5. No, the answer is 6.", 6),
        ("The answer is unknown, perhaps 3 or 4", 3),
        ("The answer is clear.\nIt is 9", 9),
    ],
)
def test_the_answer_is_read_exactly(text, answer):
    assert read_answer(text) == answer


@given(st.fractions(max_denominator=10**6), st.sampled_from(["", "$", "€"]))
def test_a_written_fraction_is_read_back(value, currency):
    sign = "-" if value < 0 else ""
    text = f"so {sign}{currency}{abs(value.numerator)}/{value.denominator} in all"
    assert numbers(text) == [value]


@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
def test_thousands_commas_and_decimals_change_nothing(value, places):
    assert read_answer(f"That makes {value:,}.{'0' * places} dollars") == value
    assert read_answer(f"That makes {value:,}{'.' if places else ''}{'0' * places}") == value


@given(st.text())
def test_no_text_makes_the_reader_fail(text):
    read_answer(text)
    read_answer(f"#### {text}")


@pytest.mark.parametrize(
    ("target", "completion", "value"),
    [
        ("#### 5", "It is 5", 1.0),
        ("#### 5", "It is -5", 0.0),
        ("#### -5", "5", 0.0),
        ("0.5", "1/2", 1.0),
        ("0.3333", "1/3", 0.0),
        ("1000", "1,000.00", 1.0),
        ("0", "", 0.0),
        ("0", "-0", 1.0),
    ],
)
def test_answers_are_compared_as_rationals_with_their_sign(target, completion, value):
    assert PROBLEM.score(make_example("How many?", target), completion).value == value


def test_equal_numbers_are_one_answer():
    example = make_example("How many?", "0.5")
    assert {PROBLEM.score(example, text).answer for text in ("0.5", "1/2", "$.50")} == {"1/2"}


def test_a_target_without_a_number_is_a_fault():
    assert PROBLEM.fault(make_example("How many?", "many")) == "the answer holds no number"
    assert PROBLEM.fault(make_example("How many?", "#### 3")) is None
    assert PROBLEM.fault(make_example(" ", "3")) == "the input is empty"


@pytest.mark.parametrize("split", ["test", "train"])
def test_every_gsm8k_target_is_read_as_the_number_after_its_mark(split):
    path = SHARED / "gsm8k" / f"{split}.jsonl"
    if not path.exists():
        pytest.skip("GSM8K is not here")
    answers = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(answers) == {"test": 1319, "train": 7473}[split]
    for answer in answers:
        written = answer.rsplit("#### ", 1)[1].replace(",", "")
        assert read_answer(answer) == Fraction(written)
        assert read_answer(f"The answer is {written}.") == Fraction(written)
