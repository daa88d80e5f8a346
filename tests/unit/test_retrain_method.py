"""The method's settings: its own file, single ones on top, and what a retraining puts in their place."""

import pytest

from flows.llm2llm import LLM2LLMConfig
from flows.perl import PERLConfig
from flows.rest import ReSTConfig
from tasks.core.errors import UserError
from tasks.core.flow_run import FlowConfig
from tasks.retrain.method import improved_model, model_field, read_method, retraining

YAML = "iterations: 2\ndata:\n  train: rows.jsonl\n  test: test.jsonl\ntraining:\n  epochs: 4\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "method.yaml"
    path.write_text(YAML)
    return str(path)


def test_single_settings_stand_above_the_file_and_the_file_above_the_defaults(file):
    settings = {"training.epochs": 5, "data": {"input": "text"}, "equal_steps": False}
    config = read_method(LLM2LLMConfig, file, settings)
    assert (config.iterations, config.training.epochs, config.equal_steps) == (2, 5, False)
    assert (config.data.train, config.data.input, config.data.target) == ("rows.jsonl", "text", "target")
    assert config.training.batch_size == LLM2LLMConfig().training.batch_size


def test_lists_and_texts_are_settings_too():
    settings = {"improve.levels": [0.1, 0.5], "data.instruction": "Say it."}
    config = read_method(ReSTConfig, "", settings)
    assert list(config.improve.levels) == [0.1, 0.5]
    assert config.data.instruction == "Say it."
    assert read_method(ReSTConfig, "", {}) == ReSTConfig()


@pytest.mark.parametrize(
    ("file", "settings", "field", "message"),
    [
        ("nothing.yaml", {}, "method_config", "there is no file"),
        ("", {"trainin.epochs": 2}, "method_settings", "unknown flag --trainin.epochs"),
        ("", {"iterations": 0}, "method_settings", "iterations: "),
        ("", {"help": 1}, "method_settings", "help"),
    ],
)
def test_mistakes_name_their_field(file, settings, field, message):
    with pytest.raises(UserError, match=message) as caught:
        read_method(LLM2LLMConfig, file, settings)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("config", "field"), [(LLM2LLMConfig(), "student"), (ReSTConfig(), "policy"), (PERLConfig(), "policy")]
)
def test_rows_model_store_and_launch_are_the_retrainings(config, field):
    assert model_field(config) == field
    retrain = FlowConfig(store="/elsewhere", retries=3)
    changed = retraining(config, retrain, "/store/train.jsonl", "/store/champion")
    assert (changed.data.train, changed.store, changed.retries) == ("/store/train.jsonl", "/elsewhere", 3)
    assert improved_model(changed).model == "/store/champion"
    assert changed.data.test == config.data.test
    assert changed.training == config.training
    own = retraining(config, retrain, "/store/train.jsonl", "")
    assert improved_model(own) == improved_model(config)
