"""A reward that cannot be given is refused before anything is loaded."""

import sys

import pytest

from tasks.core.config import identity
from tasks.core.errors import UserError
from tasks.rewards import user_function
from tasks.rewards.config import RewardConfig, check, function_code

OWN = """
def length(prompt, completion, example):
    return len(completion)

def two(prompt, completion):
    return 0

def five(prompt, completion, example, more, most):
    return 0

def rest(*values):
    return 0

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch, request):
    """The name of a fresh module in the current folder that holds OWN."""
    name = f"own_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    (tmp_path / f"{name}_broken.py").write_text("raise RuntimeError('no licence')")
    (tmp_path / f"{name}_ends.py").write_text("import sys\nsys.exit(0)")
    (tmp_path / f"{name}_crashes.py").write_text("import os\nos._exit(3)")
    (tmp_path / f"{name}_hangs.py").write_text("import time\ntime.sleep(600)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize("function", ["{own}:length", "{own}:rest", "operator:itemgetter"])
def test_a_function_that_takes_prompt_answer_and_row_is_accepted(own, function):
    check(RewardConfig(by="function", function=function.format(own=own)))


def test_a_reward_model_that_is_none_or_is_not_asked_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    for by, name, fault in (
        ("problem", "other", "rewards come by problem"),
        ("model", "nowhere", "there is no folder"),
        ("model", "other", "is no reward model"),
    ):
        with pytest.raises(UserError, match=fault) as caught:
            check(RewardConfig(by=by, model=str(tmp_path / name)))
        assert caught.value.field == "reward.model"


@pytest.mark.parametrize("by", ["problem", "model"])
def test_without_a_function_nothing_is_checked(by):
    check(RewardConfig(by=by))


@pytest.mark.parametrize(
    ("by", "function", "fault", "mend"),
    [
        ("function", "", "no function is named", "give module:function"),
        ("function", "length", "'length' names no function", "give module:function"),
        ("function", ":length", "':length' names no function", "give module:function"),
        ("function", "{own}:", "names no function", "give module:function"),
        ("function", "no_such_module:f", "'no_such_module' cannot be imported", "current folder"),
        ("function", "{own}_broken:f", "RuntimeError: no licence", "current folder"),
        ("function", "{own}_ends:f", "SystemExit: 0", "current folder"),
        ("function", "{own}_crashes:f", "exit code 3", "sys.exit"),
        ("function", "{own}_hangs:f", "no answer within 2 s", "sys.exit"),
        ("function", "{own}:lenght", "has no 'lenght'", "did you mean length? functions there: length, two"),
        ("function", "{own}:number", "cannot be called", "length, two, five, rest"),
        ("function", "{own}:two", "two(prompt, completion) cannot be called: too many", "in this order"),
        ("function", "{own}:five", "missing a required argument: 'more'", "in this order"),
        ("problem", "{own}:length", "rewards come by problem", "set reward.by to function"),
        ("model", "{own}:length", "rewards come by model", "set reward.by to function"),
    ],
)
def test_a_function_that_cannot_be_used_is_refused_with_the_mend(own, by, function, fault, mend, monkeypatch):
    if "hangs" in function:
        monkeypatch.setattr(user_function, "IMPORT_S", 2.0)
    with pytest.raises(UserError) as caught:
        check(RewardConfig(by=by, function=function.format(own=own)))
    assert caught.value.field == "reward.function"
    assert fault in caught.value.fault
    assert mend in caught.value.mend


def test_the_code_of_the_function_counts_and_that_of_other_rewards_does_not_exist(own, tmp_path):
    config = RewardConfig(by="function", function=f"{own}:length")
    before = function_code(config)
    assert len(before) == 64
    assert function_code(config) == before
    (tmp_path / f"{own}.py").write_text(OWN + "\n# changed\n")
    assert function_code(config) != before
    assert function_code(RewardConfig()) == ""


def test_only_the_batch_size_is_no_part_of_what_comes_out():
    default = identity(RewardConfig())
    assert identity(RewardConfig(batch_size=1)) == default
    assert identity(RewardConfig(time_limit_s=1)) != default
    assert identity(RewardConfig(memory_mb=512)) != default
    assert identity(RewardConfig(precision="float16")) != default
