"""Evol-Instruct as LLM2LLM's augmenter: failed rows are evolved, one request for each new row."""

import random

import pytest

from tasks.augment.evolving import choose_operation, evolve
from tasks.core.examples import make_example, read_examples, read_records
from tasks.instruct.evolving import BREADTH, IN_DEPTH
from tasks.problems.base import ProblemConfig
from tasks.problems.numeric import Numeric
from tests.flows.teacher import sentence
from tests.scripted_server import completion
from tests.unit.test_core_augment import PARENTS, Bench


def last_line(request):
    """The failed row as it is shown to the teacher."""
    return request["messages"][-1]["content"].splitlines()[-1]


def harder(request):
    """Answers that add words to the row shown."""
    words = last_line(request).removeprefix("1. ")
    return completion(f"1. {words} and {sentence(str(request))}")


def test_every_new_row_is_an_evolution_that_is_recorded_and_keeps_the_label(tmp_path):
    bench = Bench(tmp_path)
    new = bench.augment(harder, rows=8, attempts=1, form="evol", breadth_share=0.5)
    kept = read_examples(new.kept)
    assert {row.target for row in kept if row.parent == PARENTS[1].id} == {"weather"}
    names = {f"evol/{name}" for name in (*IN_DEPTH, BREADTH)}
    assert len({row.facts["operation"] for row in kept}) > 2
    assert {row.facts["operation"] for row in kept} <= names
    exchanges = list(read_records(new.exchanges[0]))
    assert len(exchanges) == len(bench.server.requests) == 16  # a request for each row of two parents
    for exchange in exchanges:
        asked = exchange["prompt"][-1]["content"]
        operation = exchange["operation"].removeprefix("evol/")
        said = "about something rarer" if operation == BREADTH else IN_DEPTH[operation]
        assert said in asked
        parent = next(row for row in PARENTS if row.id == exchange["parent"])
        assert asked.endswith(f"1. {parent.input}")
        assert f'the class "{parent.target}"' in asked


@pytest.mark.parametrize(
    ("answer", "failed"),
    [("1. Play some JAZZ!", 1), ("1. Here is the rewritten prompt", 1), ("1. play some slow jazz", 0)],
)
def test_failed_evolutions_are_left_out_and_counted(tmp_path, answer, failed):
    bench = Bench(tmp_path)
    new = bench.augment(lambda _: completion(answer), parents=PARENTS[:1], attempts=1, form="evol")
    assert new.counts.get("failed_evolution", 0) == failed
    assert (new.kept.rows if new.kept else 0) == 1 - failed
    assert new.metrics()["data/generated"] == 1 - failed


def test_breadth_is_as_likely_as_asked_for():
    chooser = random.Random(0)
    drawn = [choose_operation(0.2, chooser) for _ in range(2000)]
    assert 0.17 < drawn.count(BREADTH) / len(drawn) < 0.23
    assert all(0.17 < drawn.count(name) / len(drawn) < 0.23 for name in IN_DEPTH)
    assert {choose_operation(1.0, chooser) for _ in range(50)} == {BREADTH}


def test_a_worked_problem_is_shown_with_its_answer_and_asked_for_a_new_one():
    problem, row = Numeric(ProblemConfig(name="numeric")), make_example("Two and two?", "2 + 2 = 4\n#### 4")
    prompt = evolve(problem, row, "reason")
    assert prompt[-1]["content"].endswith("Question: Two and two?\nAnswer: 2 + 2 = 4\n#### 4")
    assert "its own, correct answer" in prompt[-1]["content"]
    written = "Question: Two and two, times three?\nAnswer: (2 + 2) * 3 = 12\n#### 12"
    [draft] = problem.read_one(written, row)
    assert (draft.input, draft.target) == ("Two and two, times three?", "(2 + 2) * 3 = 12\n#### 12")
