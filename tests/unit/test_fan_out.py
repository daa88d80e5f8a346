"""Where shards run: what is refused before anything is loaded, and what other machines are told of this one."""

import os
import socket
import sys
from importlib.util import find_spec

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import ValidationError

from flows.llm2llm import LLM2LLMConfig
from tasks.core import fan_out, task_runners
from tasks.core.errors import UserError
from tasks.core.fan_out import FanOutConfig, check_fan_out
from tasks.core.flow_run import FlowConfig
from tasks.core.settings import home
from tasks.core.task_runners import environment


def refused(match: str, whole: FlowConfig | None = None, **config: object) -> UserError:
    with pytest.raises(UserError, match=match) as caught:
        check_fan_out(FanOutConfig(**config), whole or FlowConfig())
    return caught.value


@pytest.fixture
def installed(monkeypatch):
    """As if Ray were installed; nothing here starts it."""
    monkeypatch.setattr(fan_out, "find_spec", lambda name: name)


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(fan_out, "find_spec", lambda name: None)
    fault = refused("Ray is not installed", runner="ray")
    assert (fault.field, "loopwright[ray]" in fault.mend) == ("fan_out.runner", True)
    check_fan_out(FanOutConfig(runner="processes"), FlowConfig())


def test_a_cluster_that_does_not_answer_is_told(installed):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert refused("does not answer", runner="ray", ray_address=address).field == "fan_out.ray_address"
    assert refused("does not answer", runner="ray", ray_address=f"ray://{address}")
    assert refused("does not answer", runner="ray", ray_address="no-such-host.invalid:6379")


def test_a_cluster_must_be_able_to_reach_prefects_server(installed, monkeypatch):
    monkeypatch.setattr(fan_out.socket, "create_connection", lambda *_: socket.socket())
    elsewhere, here = {"ray_address": "192.0.2.1:6379"}, {"ray_address": "localhost:6379"}
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4200/api"}):
        assert "PREFECT_API_URL" in refused("cannot reach Prefect's server", runner="ray", **elsewhere).mend
        check_fan_out(FanOutConfig(runner="ray", **here), FlowConfig())
    with temporary_settings({PREFECT_API_URL: "http://prefect.example.org/api"}):
        check_fan_out(FanOutConfig(runner="ray", **elsewhere), FlowConfig())


def test_a_call_that_this_machine_has_no_room_for_is_refused(installed):
    assert refused("this machine has", runner="ray", cpus_per_task=1000).field == "fan_out.cpus_per_task"
    assert refused("this machine has", runner="ray", gpus_per_task=1000).field == "fan_out.gpus_per_task"


def test_a_model_on_vllm_gets_the_gpus_that_it_is_spread_over(installed, monkeypatch):
    monkeypatch.setattr(fan_out, "_check_machine", lambda config: None)
    engine = {"engine": "vllm", "tensor_parallel": 2}
    whole = LLM2LLMConfig.model_validate({"evaluation": {"engine": engine}})
    fault = refused("evaluation.engine.tensor_parallel", whole, runner="ray", gpus_per_task=1)
    assert (fault.field, fault.mend) == ("fan_out.gpus_per_task", "set it to 2")
    check_fan_out(FanOutConfig(runner="ray", gpus_per_task=2), whole)
    check_fan_out(FanOutConfig(), whole)


def test_an_address_is_for_ray_only_and_has_a_port():
    assert refused("only runner ray reads it", ray_address="head:6379").field == "fan_out.ray_address"
    for address in ("head", "http://head:1", "head:port", "ray://head"):
        with pytest.raises(ValidationError):
            FanOutConfig(runner="ray", ray_address=address)


def test_without_an_address_the_cluster_is_the_one_that_the_environment_names(installed, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert FanOutConfig(runner="ray").cluster == "ray://head:10001"
    assert FanOutConfig(runner="ray", ray_address="other:6379").cluster == "other:6379"
    assert [FanOutConfig(runner=name).cluster for name in ("threads", "processes")] == ["", ""]
    monkeypatch.setenv("RAY_ADDRESS", "no-such-host.invalid:6379")
    assert "RAY_ADDRESS" in refused("no-such-host.invalid:6379 does not answer", runner="ray").mend
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert refused("RAY_ADDRESS is 'auto'", runner="ray").field == "fan_out.ray_address"
    monkeypatch.setenv("RAY_ADDRESS", "local")
    check_fan_out(FanOutConfig(runner="ray"), FlowConfig())


@pytest.mark.parametrize(
    ("address", "given", "mode"),
    [
        ("ray://head:10001", {"RAY_AUTH_TOKEN": "secret"}, "token"),
        ("ray://head:10001", {"RAY_AUTH_TOKEN": "secret", "RAY_AUTH_MODE": "disabled"}, "disabled"),
        ("ray://head:10001", {}, None),
        ("", {"RAY_AUTH_TOKEN": "secret"}, None),
    ],
)
def test_a_token_of_the_environment_is_shown_to_a_cluster(monkeypatch, address, given, mode):
    """Ray's client for ray:// shows one only where it is told to, before it connects."""
    pytest.importorskip("ray")
    found = []

    class Connecting:
        def __enter__(self):
            found.append(os.environ.get("RAY_AUTH_MODE"))

    monkeypatch.setattr(task_runners, "_ray_runner", lambda *_: Connecting())
    with monkeypatch.context() as patch:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            patch.setenv(name, "")  # so that it is put back as it was
            patch.delenv(name)
        for name, value in given.items():
            patch.setenv(name, value)
        task_runners._started(address, "http://server/api", ())
    assert found == [mode]


@pytest.mark.parametrize(
    ("config", "rows", "at_once"),
    [
        ({}, 0, 1),
        ({"rows_per_shard": 50, "at_once": 3}, 50, 3),
        ({"runner": "processes"}, 256, os.cpu_count()),
        ({"runner": "ray"}, 256, sys.maxsize),
        ({"runner": "ray", "rows_per_shard": 9, "at_once": 2}, 9, 2),
    ],
)
def test_defaults_follow_the_runner(config, rows, at_once):
    settings = FanOutConfig(**config)
    assert (settings.shard_rows, settings.most_at_once) == (rows, at_once)


def test_what_is_secret_of_the_environment_is_not_among_what_may_be_seen(monkeypatch, tmp_path):
    secret = {
        "AWS_SECRET_ACCESS_KEY": "planted",
        "HF_TOKEN": "planted",
        "MY_SERVER": "planted",
        "AWS_ENDPOINT_URL": "http://me:planted@store",
    }
    seen = {"HF_HUB_OFFLINE": "1", "LOOPWRIGHT_STORE": "s3://bucket", "AWS_REGION": "eu"}
    for name, value in (secret | seen | {"UNRELATED": "x", "PYTHONPATH": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(tmp_path))
    told, carried = environment("http://server/api", ("MY_SERVER", "NOT_SET"), elsewhere=False)
    assert carried.items() >= secret.items()
    assert told.items() >= seen.items()
    assert "planted" not in str(told)
    assert not {"UNRELATED", "NOT_SET"} & (told.keys() | carried.keys())
    assert (told["PREFECT_API_URL"], told["LOOPWRIGHT_HOME"]) == ("http://server/api", str(home()))
    path = told["PYTHONPATH"].split(os.pathsep)
    assert str(tmp_path) in path
    spec = find_spec("torch")
    assert spec is not None
    assert not any(str(spec.origin).startswith(f"{entry}{os.sep}torch") for entry in path)
    monkeypatch.delenv("LOOPWRIGHT_HOME")
    assert "LOOPWRIGHT_HOME" not in environment("", (), elsewhere=True)[0]
