"""Which samples an Improve step keeps, row by row, and what the methods' settings stand for."""

import pytest

from tasks.core.errors import UserError
from tasks.core.examples import Example, make_example, make_sample
from tasks.improve.config import REST_THRESHOLDS, ImproveConfig, check, planned
from tasks.improve.keeping import keep, prompt_of
from tasks.sft.config import TrainingConfig

QUESTIONS = [make_example("1 + 1", "2"), make_example("2 + 2", "4")]


def sample(question: int, text: str, reward: float, *, cut: bool = False) -> Example:
    return make_sample(QUESTIONS[question], text, cut=cut).model_copy(update={"reward": reward})


ROWS = [
    sample(0, "a", 0.0),
    sample(0, "b", 0.5),
    sample(0, "c", 0.7),
    sample(0, "d", 1.0),
    sample(1, "e", 0.7),
    sample(1, "f", 0.2),
    sample(1, "g", 1.0, cut=True),
    QUESTIONS[1].model_copy(update={"reward": 0.9}),
]


def kept(level: float, rows=ROWS, **settings) -> tuple[str, dict[str, int]]:
    """The letters of the kept rows, "=" for a training row, and what was rejected."""
    result = keep(planned(ImproveConfig(**settings), "rest"), level, rows)
    return "".join(row.completion or "=" for row in result.rows), result.rejected


@pytest.mark.parametrize(
    ("level", "letters", "low"),
    [(0.0, "bcdef=", 1), (0.5, "cde=", 3), (0.7, "d=", 5), (0.9, "d", 6), (0.99, "d", 6)],
)
def test_a_threshold_keeps_what_lies_strictly_above_it(level, letters, low):
    assert kept(level) == (letters, {"low": low, "cut": 1})


def test_a_threshold_above_every_reward_keeps_nothing():
    assert kept(1.0) == ("", {"low": 7, "cut": 1})
    assert kept(0.0, []) == ("", {})


def test_cut_samples_are_kept_when_asked_for():
    assert kept(0.95, keep_cut=True) == ("dg", {"low": 6})


@pytest.mark.parametrize(
    ("level", "letters"),
    # prompt 0: 0, 0.5, 0.7, 1 (median 0.6, 75 %: 0.775); prompt 1: 0.2, 0.7, 0.9 (median 0.7, 75 %: 0.8)
    [(0.0, "bcdef="), (50.0, "cde="), (75.0, "d=")],
)
def test_a_percentile_is_one_of_the_prompts_own_rewards(level, letters):
    assert kept(level, by="percentile")[0] == letters


@pytest.mark.parametrize(("level", "letters"), [(1, "d="), (2, "cde="), (3, "bcdef="), (9, "bcdef=")])
def test_the_best_n_of_every_prompt(level, letters):
    assert kept(level, by="top_n")[0] == letters


def test_the_floor_holds_for_percentiles_and_the_best_n():
    worthless = [sample(0, "a", 0.0), sample(0, "b", 0.0)]
    for by in ("percentile", "top_n"):
        assert kept(1, worthless, by=by) == ("", {"low": 2})
        assert kept(1, worthless, by=by, floor=-1.0)[0] in ("a", "ab")
    assert kept(2, by="top_n", floor=0.7)[0] == "d="


def test_rows_that_would_weigh_nothing_are_not_kept():
    assert kept(2, by="top_n", floor=-1.0)[0] == "cde="
    worthless = [sample(0, "a", 0.0), sample(0, "b", 0.5)]
    assert kept(2, worthless, by="top_n", floor=-1.0)[0] == "ab"
    assert kept(2, worthless, by="top_n", floor=-1.0, loss="reward_weighted") == ("b", {"low": 1})


def test_of_equal_rewards_the_first_ones_are_the_best():
    equal = [sample(0, letter, 0.5) for letter in "abc"]
    assert kept(2, equal, by="top_n")[0] == "ab"


def test_a_cap_leaves_so_many_of_each_prompt_whatever_their_order():
    rows = [sample(0, letter, 1.0) for letter in "abcdefgh"] + [sample(1, "z", 1.0)]
    letters, rejected = kept(0.5, rows, most_per_prompt=3, seed=1)
    assert (len(letters), rejected) == (4, {"many": 5})
    assert letters.endswith("z")
    assert set(kept(0.5, rows[::-1], most_per_prompt=3, seed=1)[0]) == set(letters)
    assert len({kept(0.5, rows, most_per_prompt=3, seed=seed)[0] for seed in range(8)}) > 1


def test_a_row_without_reward_is_a_fault_of_the_program():
    with pytest.raises(ValueError, match="no reward"):
        kept(0.5, [make_sample(QUESTIONS[0], "a")])


def test_a_training_row_belongs_to_its_own_prompt():
    assert [prompt_of(row) for row in (QUESTIONS[0], ROWS[0], ROWS[4])] == [
        QUESTIONS[0].id,
        QUESTIONS[0].id,
        QUESTIONS[1].id,
    ]


def test_what_is_left_open_is_as_published():
    rest, em = (planned(ImproveConfig(), method) for method in ("rest", "rest-em"))
    assert (rest.levels, rest.most_per_prompt, rest.mix_data, rest.start) == (
        REST_THRESHOLDS,
        0,
        "yes",
        "previous",
    )
    assert (em.levels, em.most_per_prompt, em.mix_data, em.start) == ((0.99,), 10, "no", "base")


def test_what_is_set_stays():
    chosen = ImproveConfig(levels=(0.5,), most_per_prompt=3, mix_data="no", start="warm")
    assert planned(chosen, "rest") == planned(chosen, "rest-em") == chosen
    assert planned(ImproveConfig(by="top_n"), "rest-em").levels == (4, 2, 1)
    assert planned(ImproveConfig(most_per_prompt=0), "rest-em").most_per_prompt == 0


@pytest.mark.parametrize(
    ("by", "levels"),
    [
        ("threshold", (0.5, 0.5)),
        ("threshold", (0.7, 0.5)),
        ("threshold", (1.0,)),
        ("threshold", (-0.1,)),
        ("percentile", (50.0, 100.0)),
        ("top_n", (1, 2)),
        ("top_n", (2.5,)),
        ("top_n", (0,)),
        ("top_n", (float("inf"),)),
        ("top_n", (float("nan"),)),
    ],
)
def test_levels_that_make_no_sense_are_refused(by, levels):
    with pytest.raises(UserError, match="no levels for") as caught:
        check(ImproveConfig(by=by, levels=levels), TrainingConfig())
    assert caught.value.field == "improve.levels"


@pytest.mark.parametrize(
    ("by", "levels"), [("threshold", (0, 0.9)), ("percentile", (0, 90)), ("top_n", (9, 3, 1)), ("top_n", ())]
)
def test_sensible_levels_pass(by, levels):
    check(ImproveConfig(by=by, levels=levels), TrainingConfig())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weighting": "reward"}, "improve.loss=reward_weighted"),
        ({"select": "best"}, "improve.stop_on_reward"),
    ],
)
def test_what_is_the_steps_to_decide_is_refused_in_the_training(settings, words):
    with pytest.raises(UserError) as caught:
        check(ImproveConfig(), TrainingConfig(**settings))
    assert caught.value.field == f"training.{next(iter(settings))}"
    assert words in caught.value.mend


@pytest.mark.parametrize(
    ("loss", "settings", "processes", "field"),
    [
        ("reward_weighted", {"batching": "packed"}, 1, "training.batching"),
        ("nll", {"batch_size": 2}, 3, "launch.processes"),
    ],
)
def test_what_a_step_cannot_follow_is_refused(loss, settings, processes, field):
    with pytest.raises(UserError) as caught:
        check(ImproveConfig(loss=loss), TrainingConfig(**settings), processes)
    assert caught.value.field == field
    check(ImproveConfig(loss="nll"), TrainingConfig(**settings))
