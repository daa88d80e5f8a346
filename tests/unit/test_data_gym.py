"""Tasks of reasoning-gym by address: the library's own rows, the same in every process, and every fault named."""

import json
import os
import subprocess
import sys

import pytest

from tasks.core.errors import UserError
from tasks.core.examples import Example, content_id
from tasks.core.launching.forking import python_path
from tasks.data.config import DataConfig
from tasks.data.gym import parse_address, read_gym
from tasks.data.preparing import check, prepare
from tasks.data.reading import read_located
from tasks.problems.gym_task import make_rows

CHAIN = "gym:chain_sum?size=20&seed=7&min_terms=2&max_terms=3&max_digits=2"


def read(address):
    return [row for _, row in read_located(DataConfig(train=address), "train")]


def refused(address):
    with pytest.raises(UserError) as caught:
        read(address)
    assert caught.value.field == "data.train"
    assert caught.value.fault.startswith(address)
    return caught.value


def test_the_rows_are_those_of_the_library():
    from reasoning_gym import create_dataset

    expected = create_dataset("chain_sum", size=20, seed=7, min_terms=2, max_terms=3, max_digits=2)
    rows = read(CHAIN)
    assert [(row.input, row.target) for row in rows] == [
        (entry["question"], entry["answer"]) for entry in expected
    ]
    assert all(row.id == content_id(row.input, row.target) for row in rows)
    assert rows[3].facts["dataset"] == "chain_sum"
    assert rows[3].facts["metadata"]["expression"] == expected[3]["metadata"]["expression"]
    assert [place for place, _ in read_gym(CHAIN, "data.train")][:2] == [f"{CHAIN}, row 1", f"{CHAIN}, row 2"]


def test_without_size_and_seed_there_are_500_rows_of_seed_0():
    assert parse_address("gym:chain_sum", "data.train") == ("chain_sum", {}, 500, 0)
    assert read("gym:gcd") == read("gym:gcd?seed=0&size=500")


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("operators=+,-&allow_parentheses=false", {"operators": ["+", "-"], "allow_parentheses": False}),
        ('operators=["*"]&max_digits=2', {"operators": ["*"], "max_digits": 2}),
        ("operators=%2B%2C-&whitespace=no_space", {"operators": ["+", "-"], "whitespace": "no_space"}),
        ("format_style=natural", {"format_style": "natural"}),
    ],
)
def test_values_become_what_the_task_wants(query, parameters):
    from reasoning_gym import create_dataset

    expected = create_dataset("basic_arithmetic", size=10, seed=1, **parameters)
    rows = read(f"gym:basic_arithmetic?size=10&seed=1&{query}")
    assert [row.input for row in rows] == [entry["question"] for entry in expected]


def test_several_tasks_are_one_composite():
    parts = [
        {"name": "chain_sum", "weight": 1, "config": {"max_terms": 2}},
        {"name": "gcd", "weight": 1, "config": {}},
    ]
    rows = read(f"gym:composite?size=20&datasets={json.dumps(parts)}")
    assert {row.facts["metadata"]["source_dataset"] for row in rows} == {"chain_sum", "gcd"}


READING = """
import sys
from tasks.data.gym import read_gym
for _, row in read_gym(sys.argv[1], "data.train"):
    print(row.model_dump_json())
"""


# These iterate over sets, whose order hangs on the hash seed of a process; the last draws from a global generator.
@pytest.mark.parametrize(
    "task", ["ransom_note", "isomorphic_strings", "polynomial_multiplication", "list_functions"]
)
def test_another_process_reads_the_same_rows(task):
    address = f"gym:{task}?size=6&seed=3"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": python_path()}
    there = subprocess.run(
        [sys.executable, "-c", READING, address], env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert [Example.model_validate_json(line) for line in there.splitlines()] == read(address)


@pytest.mark.parametrize(
    ("address", "fault", "mend"),
    [
        ("gym:", "names no task", "gym:NAME?size=400"),
        ("gym:?size=3", "names no task", "gym:NAME?size=400"),
        ("gym:chain_sum?size=0", "size=0 cannot be", "from 1 to 1000000"),
        ("gym:chain_sum?size=many", "size=many cannot be", "from 1 to 1000000"),
        ("gym:chain_sum?seed=-1", "seed=-1 cannot be", "from 0 to"),
        ("gym:chain_sum?size", "'size' is no parameter=value", "gym:NAME?size=400"),
        ("gym:chain_sum?max_terms=3&max_terms=4", "max_terms is given twice", "gym:NAME?size=400"),
        ("gym:chainsum", "no task 'chainsum'", "did you mean chain_sum or decimal_chain_sum?"),
        (
            "gym:chain_sum?min_terms=9",
            "refuses its parameters: max_terms must be >= min_terms",
            "max_terms=6",
        ),
        ("gym:game_of_life?filled_cells=many", "filled_cells=many is no int", "its parameters are "),
    ],
)
def test_an_address_that_cannot_be_read_is_refused_with_the_mend(address, fault, mend):
    error = refused(address)
    assert fault in error.fault
    assert mend in error.mend


@pytest.mark.parametrize(
    ("name", "parameters", "fault", "mend"),
    [
        ("qqq", {}, "no task 'qqq'", "there are ab, acre, "),
        (
            "chain_sum",
            {"terms": "2"},
            "no parameter 'terms'",
            "its parameters are min_terms=2, max_terms=6, ",
        ),
        ("chain_sum", {"min_terms": "two"}, "min_terms=two is no int", "min_terms=2"),
        ("chain_sum", {"min_terms": "2.5"}, "min_terms=2.5 is no int", "min_terms=2"),
        ("basic_arithmetic", {"whitespace": "much"}, "whitespace=much is no Literal", "whitespace=single"),
        (
            "basic_arithmetic",
            {"operators": "7,%"},
            "unsupported operator: 7",
            "operators=['+', '-', '*', '/']",
        ),
        ("composite", {}, "Must specify at least one dataset", "datasets=None"),
        ("rush_hour", {}, "no right answer to learn from", "another task"),
    ],
)
def test_a_task_that_cannot_be_made_says_what_there_is(name, parameters, fault, mend):
    made = make_rows(name, parameters, 2, 0)
    assert fault in made["fault"]
    assert mend in made["mend"]


def test_one_row_is_enough():
    assert len(read("gym:gcd?size=1&seed=5")) == 1


def test_rows_without_an_answer_are_left_out_and_counted(capfd):
    rows = read("gym:ab?size=300&seed=5")
    assert len(rows) == 299
    assert all(row.target.strip() for row in rows)
    assert "1 of 300 rows left out" in capfd.readouterr().err


def test_what_a_task_prints_is_not_ours(capfd):
    read("gym:number_sequence?size=2&seed=1")
    assert capfd.readouterr().out == ""


def test_data_by_name_is_prepared_like_any_other(tmp_path):
    config = DataConfig(
        train=CHAIN, test="gym:chain_sum?size=10&seed=1000&max_digits=2", problem="gym", seed_rows=5
    )
    check(config)
    data = prepare(config, tmp_path)
    assert (data.train.rows, data.test.rows, data.test_rows_in_train) == (5, 10, 0)
    shared = prepare(config.model_copy(update={"test": CHAIN, "seed_rows": 0}), tmp_path / "same")
    assert shared.test_rows_in_train == 20


def gym(size, seed, options="&max_terms=3"):
    return f"gym:chain_sum?size={size}&seed={seed}{options}"


@pytest.mark.parametrize(
    ("addresses", "field"),
    [
        ({"train": gym(300, 0), "test": gym(500, 200)}, "data.test"),
        ({"train": gym(300, 200), "test": gym(201, 0)}, "data.test"),
        ({"train": gym(300, 0), "test": gym(300, 0)}, "data.test"),
        ({"train": gym(9, 0), "test": gym(9, 50), "validation": gym(9, 58)}, "data.test"),
        ({"train": gym(9, 0), "test": gym(9, 50), "prompts": gym(100, 10)}, "data.test"),
        ({"train": gym(9, 0), "test": gym(9, 50), "validation": gym(9, 8)}, "data.validation"),
        (
            {"train": gym(9, 0, "&max_terms=3&min_terms=2"), "test": gym(9, 0, "&min_terms=2&max_terms=3")},
            "data.test",
        ),
    ],
)
def test_rows_that_are_held_out_and_also_used_are_refused_with_both_addresses(addresses, field):
    prompts = addresses.pop("prompts", "")
    with pytest.raises(UserError) as caught:
        check(DataConfig(problem="gym", **addresses), prompts)
    assert caught.value.field == field
    shown = [
        address for address in (*addresses.values(), prompts) if address and address in caught.value.fault
    ]
    assert addresses[field.removeprefix("data.")] in shown
    assert len(shown) == 2
    assert "seed=" in caught.value.mend


@pytest.mark.parametrize(
    ("test", "prompts"),
    [
        (gym(5, 10), ""),
        (gym(5, 10), gym(10, 0)),
        (gym(5, 10), gym(9, 1)),  # questions of the training rows may be sampled
        (gym(5, 5, "&max_terms=4"), ""),
        ("gym:gcd?size=5&seed=5", ""),
    ],
)
def test_sets_that_share_no_held_out_row_are_taken(test, prompts):
    check(DataConfig(problem="gym", train=gym(10, 0), test=test), prompts)


def test_the_seed_that_a_refusal_names_is_one_that_is_taken():
    config = DataConfig(problem="gym", train=gym(10, 3), test=gym(5, 5), validation=gym(7, 13))
    with pytest.raises(UserError) as caught:
        check(config)
    assert "seed=20 for data.test" in caught.value.mend
    check(config.model_copy(update={"test": gym(5, 20)}))
