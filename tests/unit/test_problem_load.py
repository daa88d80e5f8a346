"""Finding a problem by its name, the user's own included."""

import sys

import pytest

from tasks.core.errors import UserError
from tasks.core.examples import make_example
from tasks.problems.base import ProblemConfig
from tasks.problems.load import BUILT_IN, load_problem, problem_code

OWN = """
from tasks.problems.exact_match import ExactMatch
from tasks.problems.base import Problem

class Loud(ExactMatch):
    def target(self, example):
        return example.target.upper()

class Half(Problem):
    def show(self, example):
        return ""

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch, request):
    """The name of a fresh module in the current folder that holds OWN."""
    name = f"own_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_problem_loads_and_has_no_code_of_its_own(name):
    config = ProblemConfig(name=name)
    assert load_problem(config).config == config
    assert problem_code(config) == ""


def test_a_users_class_is_found_in_the_current_folder_and_its_code_has_a_digest(own, tmp_path):
    config = ProblemConfig(name=f"{own}:Loud")
    assert load_problem(config).target(make_example("Who?", "ada")) == "ADA"
    before = problem_code(config)
    assert len(before) == 64
    (tmp_path / f"{own}.py").write_text(OWN + "\n# changed\n")
    assert problem_code(config) != before


@pytest.mark.parametrize(
    ("name", "fault", "mend"),
    [
        ("clasification", "no problem 'clasification'", "did you mean classification?"),
        ("", "no problem ''", "multiple_choice"),
        ("no_such_module:Own", "'no_such_module' cannot be imported", "current folder"),
        (":Own", "'' cannot be imported", "current folder"),
        ("{own}:Quiet", "has no 'Quiet'", "Loud"),
        ("{own}:number", "'number' in own_", "Loud"),
        ("{own}:Half", "not complete", "read, request, score"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_what_exists(own, name, fault, mend):
    with pytest.raises(UserError) as caught:
        load_problem(ProblemConfig(name=name.format(own=own)))
    assert caught.value.field == "data.problem"
    assert fault in caught.value.fault
    assert mend in caught.value.mend


def test_a_module_that_does_not_compile_is_refused(tmp_path, monkeypatch):
    (tmp_path / "own_broken.py").write_text("def (")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(UserError, match="own_broken"):
        load_problem(ProblemConfig(name="own_broken:Own"))
