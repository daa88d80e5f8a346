"""Parts of a configuration of which only some settings are given."""

import pytest
from pydantic import Field, ValidationError

from flows.perl import PERLConfig
from tasks.core.command_line import read_config
from tasks.core.config import Config, identity


class Inner(Config):
    """The innermost part."""

    depth: int = 1
    """Depth."""
    width: int = 1
    """Width."""


class Part(Config):
    """A part."""

    by: str = "problem"
    """How."""
    limit: float = Field(10.0, gt=0.0)
    """Limit."""
    inner: Inner = Inner(width=2)
    """Its own part."""


class Whole(Config):
    """A whole with defaults of its own for its part."""

    part: Part = Part(by="model", inner=Inner(depth=7))
    """The part."""


def test_what_is_not_given_stays_as_the_whole_has_it():
    assert Whole.model_validate({"part": {"limit": 5}}).part == Part(
        by="model", limit=5, inner=Inner(depth=7)
    )
    assert Whole.model_validate({"part": {"inner": {"width": 3}}}).part.inner == Inner(depth=7, width=3)
    assert Part.model_validate({"inner": {"depth": 4}}).inner == Inner(depth=4, width=2)


def test_what_is_given_wins_and_a_whole_part_is_taken_as_it_is():
    assert Whole.model_validate({"part": {"by": "problem"}}).part.by == "problem"
    assert Whole(part=Part(limit=5)).part == Part(limit=5)
    assert Whole() == Whole.model_validate({}) == Whole.model_validate({"part": {}})
    assert identity(Whole.model_validate(Whole().model_dump())) == identity(Whole())


def test_unknown_and_wrong_settings_are_still_refused():
    for wrong in ({"part": {"bye": 1}}, {"part": {"limit": 0}}, {"part": 3}):
        with pytest.raises(ValidationError):
            Whole.model_validate(wrong)


def test_a_flag_of_a_part_does_not_take_back_the_flows_other_defaults():
    flags = ["--data.train=rows.jsonl", "--reward.time_limit_s=5", "--preferences.train=pairs.jsonl"]
    config = read_config(PERLConfig, "flows perl", flags)
    assert (config.data.problem, config.reward.by, config.preferences.test_fraction) == (
        "dialogue",
        "model",
        0.3,
    )
    assert (config.data.train, config.reward.time_limit_s) == ("rows.jsonl", 5)
