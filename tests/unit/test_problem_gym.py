"""Tasks of reasoning-gym: what is read from a completion, and that every task's own verifier judges it."""

import importlib
import inspect
import re
import sys
from fractions import Fraction

import pytest

from tasks.core.errors import UserError
from tasks.core.examples import make_example, make_sample
from tasks.data.gym import read_gym
from tasks.problems import gym_evaluation, gym_task
from tasks.problems.base import ProblemConfig
from tasks.problems.gym import read_answer
from tasks.problems.load import load_problem
from tasks.rewards.config import RewardConfig
from tasks.rewards.judgement import Judgement
from tasks.rewards.judging import judge
from tasks.rewards.sandboxed import Sandbox

PROBLEM = load_problem(ProblemConfig(name="gym"))
REFUSED = {"boxnet": "no right answer", "rush_hour": "no right answer", "game_of_life_halting": "any answer"}
MIXTURE = "composite"


def rows(address):
    return [row for _, row in read_gym(address, "data.train")]


def values(row, *completions):
    return [PROBLEM.score(row, completion).value for completion in completions]


@pytest.mark.parametrize(
    ("completion", "target", "answer"),
    [
        ("12", "7", "12"),
        (" 12 \n", "7", "12"),
        ("12\n\nBecause 5 and 7 are 12.", "7", "12"),
        ("", "7", None),
        (" \n ", "7", None),
        ("First 5, then 7.\n#### 12\nDone", "7", "12"),
        ("#### 12 #### 13", "7", "12 #### 13"),
        ("5 + 7. The answer is 12.", "7", "12"),
        ("The answer is: 12", "7", "12"),
        ("Answer: 1\nNo. Answer = 12", "7", "12"),
        ("Answer: 1.5.", "7", "1.5"),
        ("The answer is No.", "No.", "No."),
        ("The answer is", "7", None),
        ("<answer>1</answer> or <answer> 12 </answer> (answer: 3)", "7", "12"),
        ("<answer>12", "7", "<answer>12"),
        ("</answer> 12", "7", "</answer> 12"),
        ("<answer></answer>", "7", None),
        ("<think>Is the answer 3? The answer is 4.</think>\n12", "7", "12"),
        ("The answer is\n1 2\n3 4\n", "5 6\n7 8", "1 2\n3 4"),
        ("1 2\n3 4", "5 6\n7 8", "1 2\n3 4"),
        ("the answer is: none", "the answer is: none", "the answer is: none"),
    ],
)
def test_the_answer_is_read_from_where_it_stands(completion, target, answer):
    assert read_answer(completion, target) == answer


def test_the_prompt_is_the_question_under_a_short_instruction():
    row = make_example("What is 1 + 1?", "2")
    assert PROBLEM.prompt(row) == [
        {"role": "system", "content": "Give only the answer."},
        {"role": "user", "content": "What is 1 + 1?"},
    ]
    assert PROBLEM.target(row) == "2"
    other = load_problem(ProblemConfig(name="gym", instruction="Be brief."))
    assert other.prompt(row)[0]["content"] == "Be brief."


def test_the_tasks_own_scorer_decides_and_gives_credit_in_part():
    row = next(row for row in rows("gym:chain_sum?size=30&seed=3&max_terms=2") if len(row.target) == 2)
    target = row.target
    assert values(row, target, f"0{target}.00", f"The answer is +{target}.") == [1.0, 1.0, 1.0]
    assert values(row, f"{target} {target}{target}{target}", "none", "") == [pytest.approx(2 / 9), 0.0, 0.0]
    assert PROBLEM.score(row, f"#### {target}").answer == target
    assert PROBLEM.score(make_sample(row, "none"), "none").value == 0.0


def test_the_scorer_knows_the_parameters_the_rows_were_made_with():
    small, default = rows("gym:puzzle24?size=1&seed=1&max_value=6")[0], rows("gym:puzzle24?size=1&seed=1")[0]
    assert values(small, "8*3*1*1", "6*4*1*1") == [0.01, 1.0]
    assert values(default, "8*3*1*1", "6*4*1*1") == [1.0, 1.0]


def names():
    from reasoning_gym.factory import DATASETS

    return sorted(set(DATASETS) - {*REFUSED, MIXTURE})


def test_every_task_gives_its_own_answer_full_marks_and_nonsense_less():
    worths, refused = {}, {}
    with Sandbox("tasks.problems.gym_task:make_rows") as sandbox:
        for name in [*names(), *REFUSED]:
            made = sandbox.call(name, {}, 1, 2, time_limit_s=60.0).value
            if "fault" in made:
                refused[name] = made["fault"]
                continue
            (row,) = made["rows"]
            facts = {"dataset": name, "parameters": {}, "metadata": row["metadata"]}
            example = make_example(row["question"], row["answer"], facts=facts)
            worths[name] = values(example, row["answer"], "I know no answer")
    assert {name: fault in refused.pop(name) for name, fault in REFUSED.items()} == dict.fromkeys(
        REFUSED, True
    )
    assert refused == {}
    assert {name: worth for name, worth in worths.items() if worth[0] < 1 or worth[1] > 0.3} == {}
    assert len(worths) > 100


def test_an_answer_that_the_scorer_cannot_read_is_worth_nothing_and_said_once():
    (row,) = rows("gym:prime_factorization?size=1&seed=1")
    with pytest.warns(UserWarning, match="fails on some answers") as caught:
        assert values(row, "no idea", "five", row.target) == [0.0, 0.0, 1.0]
    said = {str(warning.message) for warning in caught}
    assert said == {"the scorer of prime_factorization fails on some answers: ValueError"}
    answers = [make_sample(row, text) for text in ("five", row.target)]
    with pytest.warns(UserWarning, match="fails on some answers"):
        failed, right = judge(RewardConfig(), PROBLEM, None, answers, lambda done, total: None)
    assert (failed.failure, right) == ("crashed", Judgement(1.0))
    assert failed.reason.startswith("the scorer of prime_factorization: ValueError")


def test_an_answer_that_hangs_the_scorer_is_worth_nothing(monkeypatch):
    monkeypatch.setattr("tasks.problems.gym.TIME_LIMIT_S", 1.0)
    (row,) = rows("gym:coin_flip?size=1&seed=1")
    with pytest.warns(UserWarning, match="the scorer of coin_flip fails on some answers: no answer in time"):
        score = PROBLEM.score(row, "1e999999999")
    assert (score.value, score.failure) == (0.0, "timed_out")
    assert values(row, row.target) == [1.0]


EVALUATED = [name.rpartition(".")[2] for name in (*gym_evaluation.LITERAL, *gym_evaluation.FORMULA)]


@pytest.mark.parametrize("name", EVALUATED)
def test_an_answer_is_never_run_as_a_program(tmp_path, name):
    (row,) = rows(f"gym:{name}?size=1&seed=1")
    marks = [tmp_path / str(number) for number in range(3)]
    values(
        row,
        f"__import__('pathlib').Path({str(marks[0])!r}).touch()",
        f"[__import__('os').system('touch {marks[1]}')]",
        f'x.__class__.__base__.__subclasses__() or open({str(marks[2])!r}, "w")',
    )
    assert [mark.exists() for mark in marks] == [False] * 3
    assert values(row, row.target) == [1.0]


def test_a_list_is_still_read_where_the_task_reads_one():
    (row,) = rows("gym:n_queens?size=1&seed=1")
    board = [line.split() for line in row.target.split("\n")]
    assert values(row, row.target, str(board), str(board[::-1][:1])) == [1.0, 0.5, 0.0]


def test_all_modules_that_evaluate_answers_are_known():
    """A later reasoning-gym may evaluate in more places: those must join the lists, or these if they only make rows."""
    only_rows = {"bitwise_arithmetic", "basic_arithmetic", "codeio", "number_sorting", "propositional_logic"}
    from reasoning_gym.factory import DATASETS

    found = set()
    for name in names():
        module = importlib.import_module(DATASETS[name][0].__module__)
        if re.search(r"\b(eval|exec|parse_expr|sympify|lambdify)\(", inspect.getsource(module)):
            found.add(module.__name__.removeprefix("reasoning_gym."))
    known = {*gym_evaluation.LITERAL, *gym_evaluation.FORMULA}
    assert {name for name in found - known if name.rpartition(".")[2] not in only_rows} == set()
    assert known <= found


@pytest.mark.parametrize(
    "text", ["3*x**2 + C", "(1/2)*sin(x) - ln(x)/4", "1.5*y", " 2 + 2 ", ".5", "exp(-x)*acos(x)", "pi", ""]
)
def test_formulas_are_formulas(text):
    assert gym_evaluation.is_formula(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "x.real",
        "1 .real",
        "1.real",
        "open",
        "'a'",
        "lambda: 0",
        "x[0]",
        "a=1",
        "f_x",
        "²",
        "x;y",
        "9" * 1001,
        "print(1)",
        "S__",
        "xy",
        "1e5",
        "{1}",
        "a if b else c",
        "x\\n",
        "@",
    ],
)
def test_anything_else_is_none(text):
    assert not gym_evaluation.is_formula(text)


@pytest.mark.parametrize(
    "value",
    [
        {"a": (1, 2), "b": [(), ((3,),)]},
        {1: "one", (2, 3): None},
        {"(tuple)": [1]},
        [Fraction(1, 3), 0.5, True, "ü"],
        {},
    ],
)
def test_metadata_survives_json(value):
    import json

    packed = json.loads(json.dumps(gym_task.pack(value)))
    assert gym_task.unpack(packed) == value
    assert repr(gym_task.unpack(packed)) == repr(value)


def test_metadata_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="holds a set"):
        gym_task.pack({"a": [{1}]})


def test_a_row_of_a_teachers_is_scored_by_exact_match():
    row = make_example("Sort: b a", "a b")
    assert values(row, "A b.", "The answer is a b.", "a b c", "") == [1.0, 1.0, 0.0, 0.0]
    parent = rows("gym:word_sorting?size=1&seed=1")[0]
    text = f"{PROBLEM.show(parent)}\nQuestion: Sort: d c\nAnswer: c d\nthat was easy\n\nQuestion: and?"
    drafts = PROBLEM.read(text, parent)
    assert [(draft.input, draft.target) for draft in drafts[1:]] == [("Sort: d c", "c d")]
    assert (drafts[0].input, drafts[0].target) == (parent.input.strip(), parent.target)
    request = PROBLEM.request(parent, [], 2, ["Sort: x"])
    assert parent.input in request[-1]["content"]
    assert "Sort: x" in request[-1]["content"]


def test_an_answer_of_several_lines_stays_whole():
    parent = make_example("Turn the grid", "1 2\n3 4")
    assert PROBLEM.read("Question: Turn it back\nAnswer:\n3 4\n1 2", parent)[0].target == "3 4\n1 2"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (make_example("Sort: b a", " "), "the answer is empty"),
        (make_example(" ", "a"), "the input is empty"),
        (make_example("Sort: b a", "a b"), None),
    ],
)
def test_empty_rows_are_faults(row, fault):
    assert PROBLEM.fault(row) == fault


def test_this_process_does_not_load_the_library_to_score():
    script = (
        "import sys\nfrom tasks.data.gym import read_gym\nfrom tasks.problems.gym import Gym\n"
        "from tasks.problems.base import ProblemConfig\n"
        "row = read_gym('gym:gcd?size=1', '')[0][1]\n"
        "assert Gym(ProblemConfig(name='gym')).score(row, row.target).value == 1\n"
        "assert not {'reasoning_gym', 'sympy'} & set(sys.modules)\n"
    )
    import subprocess

    from tasks.core.launching.forking import python_path

    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": python_path()})


def test_a_task_of_a_parameter_it_lost_since_is_no_wrong_answer():
    """Facts of another version of the library: the scorer cannot be made, which is no verdict on the answer."""
    with Sandbox("tasks.problems.gym_task:score") as sandbox:
        outcome = sandbox.call("gcd", {"lost": "1"}, "q", "1", {}, "1", time_limit_s=60.0)
    assert outcome.failure == "crashed"
    assert "has no parameter 'lost'" in outcome.reason
    with pytest.raises(UserError):
        rows("gym:gcd?lost=1")
