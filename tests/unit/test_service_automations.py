"""Files of automations that are none, and what a file says over what a deployment has."""

from pathlib import Path

import pytest

from deployments.service.automations import _merged, automate
from deployments.service.config import ServiceConfig
from tasks.core.errors import UserError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("", "is not a list of automations"),
        ("name: one\ntrigger: {}\nactions: []", "is not a list of automations"),
        ("- name: one\n  trigger: {}", "is not a list of automations"),
        ("- [", "cannot be read"),
    ],
)
def test_a_file_that_holds_no_automations_is_refused_before_any_server_is_asked(
    tmp_path: Path, text, message
):
    file = tmp_path / "automations.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=message):
        automate(ServiceConfig(home=tmp_path, prefect_port=9), file)


def test_what_a_file_names_takes_the_place_of_what_the_deployment_has_and_the_rest_stays():
    deployed = {"config": {"location": "", "promotion": {"level": 0.05, "gain": 0.01}}, "other": 1}
    named = {"config": {"location": "s3://new", "promotion": {"gain": 0.1}}}
    assert _merged(deployed, named) == {
        "config": {"location": "s3://new", "promotion": {"level": 0.05, "gain": 0.1}},
        "other": 1,
    }
    assert _merged({"a": {"b": 1}}, {"a": [2]}) == {"a": [2]}
    assert deployed["config"]["location"] == ""
