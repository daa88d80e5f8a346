"""Two policies on the same prompts: who wins, and what their answers are like."""

import json
from pathlib import Path
from statistics import NormalDist

import pytest

from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.core.examples import Example, make_example, make_sample, read_records, write_rows
from tasks.side_by_side.stage import STAGE, SideBySideInputs, SideBySideResult
from tasks.side_by_side.win_rate import win_rate

PROMPTS = [make_example(f"Question {number}?", "yes") for number in range(4)]


def answers(path: Path, texts: dict[int, tuple[str, float]]) -> object:
    return write_rows(
        path,
        [
            make_sample(PROMPTS[number], text, reward=reward, cut=text.endswith("…"))
            for number, (text, reward) in texts.items()
        ],
    )


def compare(folder: Path, start: dict, policy: dict, **judged: dict) -> SideBySideResult:
    inputs = SideBySideInputs(
        prompts=write_rows(folder / "prompts.jsonl", PROMPTS),
        start=answers(folder / "start.jsonl", start),
        policy=answers(folder / "policy.jsonl", policy),
        **{name: answers(folder / f"{name}.jsonl", rows) for name, rows in judged.items()},
    )
    out = folder / "out"
    out.mkdir()
    return STAGE.run(Config(), inputs, out, lambda event: None)


def test_a_tie_is_half_a_win_and_the_interval_is_where_the_score_test_does_not_reject() -> None:
    wins = win_rate([0.1, 0.5, 0.9, 0.2], [0.2, 0.5, 0.1, 0.3])
    assert (wins.wins, wins.ties, wins.rate) == (2, 1, 2.5 / 4)
    quantile = NormalDist().inv_cdf(0.975)
    for end in (wins.low, wins.high):  # the score test's own equation, which defines Wilson's interval
        assert abs(wins.rate - end) / (end * (1 - end) / 4) ** 0.5 == pytest.approx(quantile)


def test_every_prompt_won_is_no_certainty() -> None:
    wins = win_rate([0.0] * 10, [1.0] * 10)
    assert (wins.rate, wins.high) == (1.0, pytest.approx(1.0))
    assert 0.7 < wins.low < 0.75


def test_figures_of_a_hand_made_case(tmp_path: Path) -> None:
    start = {0: ("a b a b", 0.2), 1: ("one two", 0.4), 2: ("x", 0.9)}
    policy = {0: ("a b c d", 0.6), 1: ("one two", 0.4), 2: ("y z…", 0.5), 3: ("alone", 1.0)}
    result = compare(tmp_path, start, policy)
    assert (result.prompts, result.unanswered) == (
        3,
        1,
    )  # prompt 3 was answered by one alone, and does not count
    assert (result.wins.wins, result.wins.ties) == (1, 1)
    assert result.start.reward == pytest.approx(0.5)
    assert result.policy.reward == pytest.approx(0.5)
    assert result.start.distinct_2 == pytest.approx(3 / 4)  # ab, ba, ab and "one two"
    assert result.policy.words == pytest.approx((4 + 2 + 2) / 3)
    assert result.policy.cut == pytest.approx(1 / 3)
    rows = list(read_records(result.rows))
    assert [row["policy"] for row in rows] == ["a b c d", "one two", "y z…"]
    assert result.judged is None
    assert "held_out/judged_win_rate" not in result.metrics()


def test_the_judge_is_asked_apart(tmp_path: Path) -> None:
    start, policy = {0: ("a", 0.1), 1: ("b", 0.1)}, {0: ("c", 0.9), 1: ("d", 0.9)}
    against = {
        "start_judged": {0: ("a", 0.7), 1: ("b", 0.7)},
        "policy_judged": {0: ("c", 0.2), 1: ("d", 0.8)},
    }
    result = compare(tmp_path, start, policy, **against)
    assert result.wins.rate == 1.0
    assert result.judged is not None
    assert result.judged.rate == 0.5


def test_an_empty_answer_is_an_answer(tmp_path: Path) -> None:
    start: dict[int, tuple[str, float]] = {0: ("one two", 0.4), 1: ("three", 0.6)}
    result = compare(tmp_path, start, {0: ("", 0.0), 1: ("", 0.0)})
    assert (result.prompts, result.unanswered) == (2, 2)
    assert (result.policy.reward, result.policy.words, result.policy.distinct_2) == (0.0, 0.0, 0.0)
    assert result.wins.rate == 0.0


def test_no_common_answer_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="answered by both"):
        compare(tmp_path, {0: ("a", 0.1)}, {1: ("b", 0.1)})


def test_the_same_answers_are_all_ties(tmp_path: Path) -> None:
    rows: dict[int, tuple[str, float]] = {0: ("same", 0.3), 1: ("same too", 0.8)}
    result = compare(tmp_path, rows, rows)
    assert (result.wins.ties, result.wins.rate) == (2, 0.5)
    assert json.loads(result.model_dump_json())["policy"] == json.loads(result.model_dump_json())["start"]


def test_a_sample_without_a_reward_is_a_fault_of_the_flow(tmp_path: Path) -> None:
    unscored: list[Example] = [make_sample(PROMPTS[0], "a")]
    rows = write_rows(tmp_path / "rows.jsonl", unscored)
    inputs = SideBySideInputs(prompts=write_rows(tmp_path / "p.jsonl", PROMPTS), start=rows, policy=rows)
    with pytest.raises(ValueError, match="no reward"):
        STAGE.run(Config(), inputs, tmp_path, lambda event: None)
