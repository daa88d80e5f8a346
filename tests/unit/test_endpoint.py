"""The server behind a configuration: its key, its address and its models, checked before any work."""

import logging
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.core.config import identity
from tasks.core.errors import UserError
from tasks.core.generators.base import Prompt, Sampling
from tasks.core.generators.endpoint import EndpointConfig
from tasks.core.generators.openai_compatible import OpenAICompatible
from tests.scripted_server import Reply, ScriptedServer, refusal

KEY = "sk-very-secret-0123456789"
PROMPTS: list[Prompt] = [[{"role": "user", "content": "a"}]]


@pytest.fixture(autouse=True)
def no_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def generator(url: str, model: str = "scripted", **settings: Any) -> OpenAICompatible:
    return OpenAICompatible(EndpointConfig(url=url, model=model, **settings), field="teacher")


# The key


def test_the_key_is_sent_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEACHER_KEY", f"{KEY}\n")
    caplog.set_level(logging.DEBUG)

    def repeat_the_key(request: dict[str, Any]) -> Reply:
        return refusal(401, f"Incorrect API key provided: {KEY}")

    with ScriptedServer(repeat_the_key) as server:
        made = generator(server.url, key_env="TEACHER_KEY")
        with pytest.raises(UserError, match=r"provided: \[key\]") as caught:
            made.generate(PROMPTS, Sampling())
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    assert "TEACHER_KEY holds a key that it does not accept" in caught.value.mend
    assert KEY not in f"{caught.value!r}{caught.value}{made.config!r}{caplog.text}"


@pytest.mark.parametrize("key", [f"{KEY}\nX-Evil: 1", f"{KEY} and more", f"{KEY}…"])
def test_a_key_that_cannot_be_one_is_refused_without_showing_it(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with (
        ScriptedServer() as server,
        pytest.raises(UserError, match="OPENAI_API_KEY does not hold a key") as caught,
    ):
        generator(server.url).generate(PROMPTS, Sampling())
    assert KEY not in str(caught.value)
    assert server.requests == []


def test_a_key_written_into_the_configuration_is_not_repeated() -> None:
    with pytest.raises(ValidationError, match="key_env") as caught:
        EndpointConfig(key_env=KEY)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8080", "ftp://host/v1", "http://", "http://a b/v1", "http://me:pw@host/v1", "http://host:x/v1",
     "http://host/v1?key=1", "http://a..b/v1", "http://é/v1"],
)  # fmt: skip
def test_an_address_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="url"):
        EndpointConfig(url=url)


@pytest.mark.parametrize(
    "url", ["http://host", "https://api.example.com/v1/", "http://127.0.0.1:8080/v1", "http://[::1]:80/a/b"]
)
def test_an_address_may_have_a_port_and_a_path(url: str) -> None:
    assert EndpointConfig(url=url).url == url


def test_moving_the_server_keeps_what_is_cached_and_another_model_does_not() -> None:
    here = EndpointConfig(url="http://a/v1", model="m", concurrency=2, timeout_s=1, key_env="A", attempts=1)
    there = EndpointConfig(url="http://b/v1", model="m", backoff_s=9)
    assert identity(here) == identity(there) != identity(EndpointConfig(url="http://a/v1", model="n"))


# The check before any work


@pytest.mark.parametrize(
    ("models", "model"),
    [
        (["scripted", "other"], "scripted"),
        (["only"], ""),
        (Reply(body={"data": [{"id": "x", "aliases": ["scripted"]}]}), "scripted"),
        (refusal(404, "no such path"), "scripted"),
    ],
)
def test_the_check_passes_and_the_model_is_asked_for_by_its_name(models: Any, model: str) -> None:
    with ScriptedServer(models=models) as server:
        made = generator(server.url, model=model)
        made.check()
        made.generate(PROMPTS, Sampling())
    assert server.requests[0].json["model"] == (model or "only")


@pytest.mark.parametrize(
    ("models", "model", "field", "message"),
    [
        (["a", "b"], "c", "teacher.model", "serves no model 'c'\n  Name one of those it lists: a, b."),
        (["a", "b"], "", "teacher.model", "serves 2 models\n  Name one of those it lists: a, b."),
        ([], "c", "teacher.model", "serves no model 'c'\n  Name one of those it lists: none."),
        ([f"m{i}" for i in range(13)], "c", "teacher.model", "m7, m8, m9 and 3 more."),
        (refusal(404, "no such path"), "", "teacher.model", "HTTP 404: no such path"),
        (refusal(401, "bad key"), "c", "teacher.key_env", "HTTP 401: bad key"),
        (refusal(403, "bad key"), "c", "teacher.key_env", "HTTP 403: bad key"),
        (refusal(503, "Loading model"), "c", "teacher.url", "HTTP 503: Loading model"),
        (Reply(body="<html>hello</html>"), "c", "teacher.url", "it usually ends in /v1"),
        (Reply(drop=True), "c", "teacher.url", "cannot be reached"),
    ],
)
def test_the_check_says_what_is_wrong_and_how_to_mend_it(
    models: Any, model: str, field: str, message: str
) -> None:
    with ScriptedServer(models=models) as server, pytest.raises(UserError) as caught:
        generator(server.url, model=model).check()
    assert caught.value.field == field
    assert message in str(caught.value)
    assert server.url in caught.value.fault
    assert server.requests == []


@pytest.mark.parametrize("url", ["http://192.168.1.300:8000/v1", "http://[::::]/v1", "http://xn--a/v1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="is no address") as caught:
        generator(url).check()
    assert caught.value.field == "teacher.url"
