"""Preparing data: exact rows kept, subsets independent of order, mistakes refused before anything is done."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import UserError
from tasks.core.examples import make_example, read_examples
from tasks.data.config import DataConfig
from tasks.data.preparing import STAGE, check, inputs, prepare
from tasks.data.subset import shuffled, take_in_proportion

LABELS = {"weather": 12, "music": 6, "alarm": 2}
TRAIN = [{"input": f"{label} {n}", "target": label} for label, size in LABELS.items() for n in range(size)]
TEST = [{"input": f"test {label}", "target": label} for label in LABELS]


@pytest.fixture
def config(tmp_path):
    """Makes a configuration over rows written to files."""

    def make(train=TRAIN, test=TEST, validation=None, **settings):
        for name, rows in (("train", train), ("test", test), ("validation", validation)):
            if rows is not None:
                (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
                settings[name] = str(tmp_path / f"{name}.jsonl")
        return DataConfig(**settings)

    return make


def _pairs(ref):
    return [(row.input, row.target) for row in read_examples(ref)]


def test_without_limits_every_row_is_kept_once_and_labels_are_filled_in_sorted(config, tmp_path):
    data = prepare(config(train=TRAIN + TRAIN[:3]), tmp_path / "out")
    assert sorted(_pairs(data.train)) == sorted((row["input"], row["target"]) for row in TRAIN)
    assert sorted(_pairs(data.test)) == sorted((row["input"], row["target"]) for row in TEST)
    assert data.problem.labels == ("alarm", "music", "weather")
    assert (data.duplicates, data.train.rows, data.test.rows, data.validation) == (3, 20, 3, None)
    assert data.targets == {"alarm": 2, "music": 6, "weather": 12}
    assert {(row.origin, row.step, row.parent) for row in read_examples(data.train)} == {("seed", 0, None)}


def test_test_rows_that_are_training_rows_are_counted_and_kept(config, tmp_path):
    data = prepare(config(test=[*TEST, TRAIN[0], TRAIN[0], TRAIN[5]]), tmp_path / "out")
    assert (data.test_rows_in_train, data.test.rows) == (3, 6)


def dialogue(words, reply="Yes."):
    return {"input": f"\n\nHuman: {words}\n\nAssistant: {reply}"}


def test_rows_that_do_not_fit_and_long_ones_are_left_out_and_counted(config, tmp_path):
    train = [dialogue("a" * 20), dialogue("b" * 21), dialogue("c", ""), dialogue("d"), {"input": None}]
    test = [dialogue("e" * 40), dialogue("f")]
    whole = {"problem": "dialogue", "target": "input", "faulty": "drop"}
    wanted = config(train, test, **whole, longest_input=len("\n\nHuman: ") + 20)
    data = prepare(wanted, tmp_path / "out")
    assert sorted(row.input[9:] for row in read_examples(data.train)) == ["a" * 20, "d"]
    assert [row.input[9:] for row in read_examples(data.test)] == ["f"]
    assert sum(data.left_out.values()) == 4
    assert data.cautions() == [
        "Rows of the data that were left out: 2 do not fit the problem, 2 have an input of more than 29 characters."
    ]
    assert prepare(config(train, test, **whole), tmp_path / "all").cautions() == [
        "Rows of the data that were left out: 2 do not fit the problem."
    ]
    for number, what in ((5, "is null"), (3, "the reply is empty")):
        with pytest.raises(UserError, match=f"line {number}.*{what}") as caught:
            check(config(train[:number], test, **whole | {"faulty": "refuse"}))
        assert "--data.faulty=drop" in caught.value.mend
    with pytest.raises(UserError, match="no row is left: 1 do not fit the problem, 1 have") as caught:
        check(config([dialogue("a", ""), dialogue("b")], test, **whole, longest_input=5))
    assert (caught.value.field, "longest_input" in caught.value.mend) == ("data.train", True)
    for some, asked, field in (
        ([{"input": None}], test, "train"),
        ([dialogue("a")], [{"input": ""}], "test"),
    ):
        with pytest.raises(UserError, match="no row is left: all do not fit") as caught:
            check(config(some, asked, **whole))
        assert (caught.value.field, "longest_input" in caught.value.mend) == (f"data.{field}", False)


def test_more_rows_at_fault_are_other_data(config):
    train = [dialogue("a"), {"input": None}]
    whole = {"problem": "dialogue", "target": "input", "faulty": "drop"}
    found = [inputs(config(train[:count], [dialogue("f")], **whole)).train for count in (1, 2, 2)]
    assert found[0] != found[1] == found[2]


def test_labels_are_those_of_the_rows_that_are_left(config, tmp_path):
    train = [{"input": "short", "target": "a"}, {"input": "much longer", "target": "b"}]
    test = [{"input": "x", "target": "a"}, {"input": "y", "target": "b"}]
    assert prepare(config(train, test[:1], longest_input=5), tmp_path / "out").problem.labels == ("a",)
    with pytest.raises(UserError, match="labels that no training row has: b"):
        check(config(train, test, longest_input=5))


@pytest.mark.parametrize(
    "settings", [{}, {"seed_per_label": 2}, {"seed_rows": 7}, {"validation_fraction": 0.3}]
)
def test_the_order_of_the_file_changes_nothing_and_a_rerun_repeats_it(config, tmp_path, settings):
    first = prepare(config(test_rows=2, **settings), tmp_path / "first")
    mixed = random.Random(0).sample(TRAIN, len(TRAIN))
    second = prepare(config(train=mixed, test=TEST[::-1], test_rows=2, **settings), tmp_path / "second")
    digests = [
        [ref and ref.digest for ref in (data.train, data.test, data.validation)] for data in (first, second)
    ]
    assert digests[0] == digests[1]


def test_another_seed_takes_other_rows(config, tmp_path):
    taken = {prepare(config(seed_rows=5, seed=seed), tmp_path / str(seed)).train.digest for seed in range(5)}
    assert len(taken) == 5


def test_seed_per_label_takes_exactly_that_many_and_more_rows_contain_fewer(config, tmp_path):
    one = prepare(config(seed_per_label=1), tmp_path / "one")
    two = prepare(config(seed_per_label=2), tmp_path / "two")
    assert one.targets == {"alarm": 1, "music": 1, "weather": 1}
    assert two.targets == {"alarm": 2, "music": 2, "weather": 2}
    assert set(_pairs(one.train)) < set(_pairs(two.train))


@pytest.mark.parametrize(
    ("count", "shares"),
    [
        (10, {"weather": 6, "music": 3, "alarm": 1}),
        (7, {"weather": 4, "music": 2, "alarm": 1}),  # 4.2, 2.1, 0.7
        (5, {"weather": 3, "music": 2}),  # 3.0, 1.5, 0.5: of equal remainders the larger label's
        (1, {"weather": 1}),
        (20, LABELS),
    ],
)
def test_seed_rows_keeps_the_proportions_by_largest_remainder(config, tmp_path, count, shares):
    assert prepare(config(seed_rows=count), tmp_path / "out").targets == dict(sorted(shares.items()))


def test_test_rows_is_a_limit_not_a_demand(config, tmp_path):
    assert prepare(config(test_rows=2), tmp_path / "two").test.rows == 2
    assert prepare(config(test_rows=99), tmp_path / "all").test.rows == 3


def test_validation_rows_come_from_their_own_file_or_are_held_out_of_training(config, tmp_path):
    own = prepare(config(validation=TEST), tmp_path / "own")
    assert (own.validation.rows, own.train.rows) == (3, 20)
    held = prepare(config(validation_fraction=0.25), tmp_path / "held")
    kept, out = set(_pairs(held.train)), set(_pairs(held.validation))
    assert (len(kept), len(out), kept & out) == (15, 5, set())
    assert Counter(label for _, label in out) == {"weather": 3, "music": 2}


@pytest.mark.parametrize(
    ("settings", "field", "fault"),
    [
        ({"seed_per_label": 3}, "data.seed_per_label", "alarm (2)"),
        ({"seed_per_label": 7}, "data.seed_per_label", "alarm (2), music (6)"),
        ({"seed_rows": 21}, "data.seed_rows", "21 rows are wanted, there are 20"),
        ({"seed_rows": 5, "seed_per_label": 1}, "data.seed_rows", "seed_per_label is set as well"),
        ({"problem": "exact_match", "seed_per_label": 1}, "data.seed_per_label", "no labels"),
        ({"validation_fraction": 0.01}, "data.validation_fraction", "0.01 of 20 rows"),
        ({"problem": "numbers"}, "data.problem", "numbers"),
        ({"problem": "numeric", "target": "input", "input": "target", "test": []}, "data.test", "is empty"),
        ({"problem": "numeric"}, "data.train", "the answer holds no number"),
        ({"problem": "multiple_choice"}, "data.train", "line 1: it has 0 choices"),
        ({"test": [*TEST, {"input": "Hi", "target": "sports"}]}, "data.test", "sports"),
        ({"validation": [{"input": "Hi", "target": "sports"}]}, "data.validation", "sports"),
        ({"train": [*TRAIN, {"input": "Hi", "target": "Music"}]}, "data.target", "'Music' and 'music'"),
        ({"test": None}, "data.test", "no rows are named"),
        ({"train": None}, "data.train", "no rows are named"),
    ],
)
def test_a_mistake_is_refused_by_check_and_by_prepare_before_anything_is_written(
    config, tmp_path, settings, field, fault
):
    made = config(**settings)
    for attempt in (lambda: check(made), lambda: prepare(made, tmp_path / "out")):
        with pytest.raises(UserError) as caught:
            attempt()
        assert fault in caught.value.fault
        assert caught.value.mend
    assert not (tmp_path / "out").exists()


def test_check_accepts_what_prepare_accepts_and_writes_nothing(config, tmp_path):
    check(config(seed_per_label=2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.jsonl", "train.jsonl"]


def test_one_row_each_is_enough(config, tmp_path):
    data = prepare(config(train=TRAIN[:1], test=TEST[:1]), tmp_path / "out")
    assert (data.train.rows, data.test.rows, data.problem.labels) == (1, 1, ("weather",))


def test_numbers_as_targets_work_with_the_numeric_problem(config, tmp_path):
    rows = [{"input": f"{n} + 1?", "target": n + 1} for n in range(4)]
    data = prepare(config(train=rows, test=rows[:1], problem="numeric", seed_rows=2), tmp_path / "out")
    assert (data.train.rows, data.targets, data.problem.labels) == (2, {}, ())


def test_the_cache_key_follows_the_content_of_the_sources_not_their_order_or_place(config, tmp_path):
    def key(address=None, **rows):
        made = config(**rows)
        made = made.model_copy(update={"train": address or made.train})
        return STAGE.key(made, inputs(made))

    assert key() == key(train=TRAIN[::-1], test=TEST[::-1])
    elsewhere = tmp_path / "moved.json"
    elsewhere.write_text(json.dumps(TRAIN))
    assert key() == key(train=None, address=str(elsewhere))
    assert len({key(), key(train=TRAIN[1:]), key(test=TEST[1:]), key(validation=TEST)}) == 4


def test_a_users_own_problem_puts_the_digest_of_its_code_into_the_configuration(
    config, tmp_path, monkeypatch
):
    code = "from tasks.problems.classification import Classification\nclass Own(Classification): pass\n"
    (tmp_path / "own_labels.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    data = prepare(config(problem="own_labels:Own", seed_per_label=1), tmp_path / "out")
    assert len(data.problem.code) == 64
    assert (data.problem.labels, data.train.rows) == (("alarm", "music", "weather"), 3)


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=60),
    st.integers(1, 70),
    st.integers(0, 5),
    st.randoms(),
)
def test_a_proportional_subset_has_the_wanted_size_and_no_share_is_off_by_a_whole_row(
    labels, count, seed, chance
):
    rows = [make_example(f"row {n}", label) for n, label in enumerate(labels)]
    taken = take_in_proportion(rows, count, seed, lambda row: row.target)
    assert len(taken) == min(count, len(rows))
    assert {row.id for row in taken} <= {row.id for row in rows}
    for label, size in Counter(labels).items():
        exact = size * len(taken) / len(rows)
        assert abs(sum(row.target == label for row in taken) - exact) < 1
    mixed = chance.sample(rows, len(rows))
    assert take_in_proportion(mixed, count, seed, lambda row: row.target) == taken
    assert shuffled(mixed, seed) == shuffled(rows, seed)


def test_the_only_row_of_a_label_is_not_held_out(config, tmp_path):
    """Nothing could be learned of that label, and it would be among those that are answered all the same."""
    train = [{"input": f"often {number}", "target": "often"} for number in range(10)]
    train += [{"input": f"once {number}", "target": f"once {number}"} for number in range(30)]
    test = [{"input": "test", "target": "often"}]
    data = prepare(config(train=train, test=test, validation_fraction=0.5), tmp_path / "out")
    assert {label for _, label in _pairs(data.train)} == set(data.problem.labels)
    assert {label for _, label in _pairs(data.validation)} == {"often"}
    assert data.train.rows + data.validation.rows == 40
    with pytest.raises(UserError, match="every label has one row alone") as caught:
        prepare(config(train=train[10:], test=train[10:11], validation_fraction=0.5), tmp_path / "none")
    assert caught.value.field == "data.validation_fraction"
