"""Rewards over HTTP: every answer its own score, and of all that can go wrong one readable message."""

import logging
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.core.config import identity
from tasks.core.errors import UserError
from tasks.core.examples import make_example, make_sample, read_examples, write_rows
from tasks.core.launching import forking
from tasks.core.launching.launch import LaunchConfig
from tasks.core.stage import compute
from tasks.core.store import Store
from tasks.problems.base import ProblemConfig
from tasks.rewards import stage
from tasks.rewards.config import RewardConfig, check
from tasks.rewards.endpoint import RewardEndpoint
from tasks.rewards.endpoint_config import RewardEndpointConfig
from tests.scripted_server import Reply, Script, ScriptedServer, refusal

KEY = "rk-very-secret-0123456789"
EXACT = ProblemConfig(name="exact_match", instruction="Say a number.")
QUESTIONS = [make_example(f"Question {number}?", "0.5") for number in range(3)]


@pytest.fixture(autouse=True)
def no_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REWARD_API_KEY", raising=False)


def as_told(request: dict[str, Any]) -> Reply:
    """The number that a completion consists of."""
    return Reply(body={"scores": [float(one["completion"]) for one in request["inputs"]]})


def served(script: Script = as_told) -> ScriptedServer:
    return ScriptedServer(script)


def address(server: ScriptedServer) -> str:
    return f"{server.url}/chat/completions"  # where the scripted server takes requests


def endpoint(server: ScriptedServer, **settings: Any) -> RewardEndpointConfig:
    return RewardEndpointConfig(url=address(server), **{"backoff_s": 0.0} | settings)


def score(config: RewardEndpointConfig, *texts: str) -> list[float]:
    return RewardEndpoint(config).score([[{"role": "user", "content": "Say."}]] * len(texts), texts)


def failure(script: Script, *texts: str, **settings: Any) -> tuple[UserError, ScriptedServer, str]:
    with served(script) as server:
        config = endpoint(server, **settings)
        with pytest.raises(UserError) as caught:
            score(config, *(texts or ("0.5",)))
    assert config.url in caught.value.fault
    return caught.value, server, config.url


# What is asked and what comes back


def test_a_request_holds_prompt_and_answer_and_every_answer_gets_its_own_score() -> None:
    with served() as server:
        assert score(endpoint(server), "0.25", "1", "0") == [0.25, 1.0, 0.0]
    (request,) = server.requests
    prompt = [{"role": "user", "content": "Say."}]
    assert request.json == {"inputs": [{"prompt": prompt, "completion": text} for text in ("0.25", "1", "0")]}
    assert "Authorization" not in request.headers
    assert request.headers["Content-Type"] == "application/json"


def test_batches_in_flight_together_come_back_in_order_and_are_counted() -> None:
    texts = [str(number / 32) for number in range(23)]
    together = threading.Barrier(3, timeout=20)

    def slow(request: dict[str, Any]) -> Reply:
        if len(request["inputs"]) == 4 and float(request["inputs"][0]["completion"]) < 12 / 32:
            together.wait()  # passes only when three requests are under way at once
        return as_told(request)

    counted: list[tuple[int, int]] = []
    with served(slow) as server:
        found = RewardEndpoint(endpoint(server, batch_size=4, concurrency=3)).score(
            [[{"role": "user", "content": "Say."}]] * 23, texts, lambda *counts: counted.append(counts)
        )
    assert found == [number / 32 for number in range(23)]
    assert sorted(len(request.json["inputs"]) for request in server.requests) == [3, 4, 4, 4, 4, 4]
    assert server.peak_concurrency == 3
    assert [total for _, total in counted] == [23] * 6
    assert counted[-1] == (23, 23)


def test_nothing_to_score_asks_nothing() -> None:
    with served() as server:
        assert score(endpoint(server)) == []
    assert server.requests == []


def test_a_text_that_is_no_unicode_arrives_as_it_is() -> None:
    odd = "half of a pair: \ud83d, a null: \0, an umlaut: ü"
    with served(lambda request: Reply(body={"scores": [0.5]})) as server:
        score(endpoint(server), odd)
    assert server.requests[0].json["inputs"][0]["completion"] == odd


def test_what_rounding_puts_beyond_the_bounds_is_brought_back() -> None:
    with served([Reply(body={"scores": [1.0000001, -0.0000001]})]) as server:
        assert score(endpoint(server), "a", "b") == [1.0, 0.0]


# The key


def test_the_key_is_sent_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    caplog.set_level(logging.DEBUG)
    for reply in (refusal(403, f"bad key {KEY}"), refusal(400, f"bad key {KEY}"), Reply(body=f"<p>{KEY}")):
        error, server, _ = failure([reply], key_env="MY_KEY")
        assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"
        assert "[key]" in error.fault
        assert KEY not in f"{error!r}{error}{error.__cause__!s}{caplog.text}"
        if reply.status == 403:
            assert error.field == "reward.endpoint.key_env"
            assert "MY_KEY holds a key that it does not accept" in error.mend


def test_without_a_key_a_refusal_says_so() -> None:
    error, _, _ = failure([refusal(401, "no key")])
    assert "HTTP 401: no key" in error.fault
    assert "REWARD_API_KEY is not set" in error.mend


def test_a_key_written_into_the_configuration_is_not_repeated() -> None:
    with pytest.raises(ValidationError, match="key_env") as caught:
        RewardEndpointConfig(key_env=KEY)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://host/x", "http://me:pw@host/x", "http://h/x?key=1"]
)
def test_an_address_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="url"):
        RewardEndpointConfig(url=url)


# What can go wrong


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(body="<html>hello</html>"), "not of the form that is asked for: <html>hello"),
        (Reply(body=""), "(empty)"),
        (Reply(body="[0.5]"), "[0.5]"),
        (Reply(body={"score": [0.5]}), '{"score": [0.5]}'),
        (Reply(body={"scores": ["0.5"]}), '["0.5"]'),
        (Reply(body={"scores": [None]}), "null"),
        (Reply(body={"scores": [True]}), "true"),
        (Reply(body={"scores": []}), "0 scores for 1"),
        (Reply(body={"scores": [0.5, 0.5]}), "2 scores for 1"),
        (Reply(body='{"scores": [NaN]}'), "nan, not a number from 0 to 1"),
        (Reply(body='{"scores": [Infinity]}'), "inf, not a number from 0 to 1"),
        (Reply(body={"scores": [1.01]}), "1.01, not a number from 0 to 1"),
        (Reply(body={"scores": [-7]}), "-7.0, not a number from 0 to 1"),
        (refusal(400, "unknown field"), "HTTP 400: unknown field"),
        (refusal(404, "no such path"), "HTTP 404: no such path"),
        (Reply(422, {"detail": "inputs missing"}), 'HTTP 422: {"detail": "inputs missing"}'),
        (Reply(307, "", {"Location": "http://elsewhere/"}), "HTTP 307"),
        (refusal(429, "come tomorrow", headers={"Retry-After": "90000"}), "it asks to wait 90000 s"),
    ],
)  # fmt: skip
def test_what_no_waiting_mends_ends_at_once_and_says_what_it_is(reply: Reply, words: str) -> None:
    error, server, _ = failure([reply])
    assert words in error.fault
    assert error.field == "reward.endpoint.url"
    assert len(server.requests) == 1
    assert len(str(error)) < 700


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (refusal(429, "slow down"), "HTTP 429: slow down (after 3 attempts)"),
        (refusal(500, "oops"), "HTTP 500: oops (after 3 attempts)"),
        (refusal(503, "loading"), "HTTP 503: loading (after 3 attempts)"),
        (Reply(drop=True), "the connection failed"),
        (Reply(delay_s=5.0), "no answer within 0.2 s (after 3 attempts)"),
    ],
)
def test_what_may_pass_is_tried_again_and_then_ends(reply: Reply, words: str) -> None:
    error, server, _ = failure([reply] * 3, attempts=3, timeout_s=0.2)
    assert words in error.fault
    assert len(server.requests) == 3


def test_after_what_passes_the_scores_are_those_of_an_undisturbed_run() -> None:
    troubles = iter([refusal(503, "loading"), Reply(drop=True), refusal(429, "slow"), Reply(delay_s=2.0)])

    def troubled(request: dict[str, Any]) -> Reply:
        return next(troubles, None) or as_told(request)

    texts = [str(number / 8) for number in range(8)]
    with served(troubled) as server:
        config = endpoint(server, batch_size=2, concurrency=2, timeout_s=0.5)
        assert score(config, *texts) == [number / 8 for number in range(8)]
    assert len(server.requests) == 4 + 4


def test_a_rest_that_the_service_asks_for_is_kept() -> None:
    replies = [refusal(429, "slow", headers={"Retry-After": "1"}), Reply(body={"scores": [0.5]})]
    with served(replies) as server:
        score(endpoint(server), "a")
    first, second = server.requests
    assert second.time - first.time >= 1.0


def test_a_service_that_is_not_there_is_said_to_be_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/score"
        config = RewardConfig(by="endpoint", endpoint=RewardEndpointConfig(url=url))
        with pytest.raises(UserError, match="cannot be reached") as caught:
            check(config)
    assert url in caught.value.fault
    assert caught.value.field == "reward.endpoint.url"
    assert "Start the service" in caught.value.mend


# Before any work, and what is kept


def test_the_check_has_one_answer_scored_and_believes_nothing_else() -> None:
    with served([Reply(body={"scores": [0.5]})]) as server:
        check(RewardConfig(by="endpoint", endpoint=endpoint(server)))
    (request,) = server.requests
    assert [set(one) for one in request.json["inputs"]] == [{"prompt", "completion"}]
    for script in ([Reply(body={"scores": [2]})], [refusal(401, "no")], [refusal(503, "loading")] * 2):
        with served(script) as server, pytest.raises(UserError):
            check(RewardConfig(by="endpoint", endpoint=endpoint(server)))
        assert len(server.requests) == len(script)  # it is not waited for as long as in the middle of a run


@pytest.mark.parametrize("by", ["problem", "model"])
def test_an_endpoint_that_is_not_asked_is_refused_and_the_default_is_none(by: Any) -> None:
    check(RewardConfig(by=by))
    config = RewardConfig(by=by, endpoint=RewardEndpointConfig(url="http://host/score"))
    with pytest.raises(UserError, match=f"rewards come by {by}") as caught:
        check(config)
    assert caught.value.field == "reward.endpoint.url"


def test_the_address_and_its_version_decide_what_is_kept_and_nothing_else_does() -> None:
    def key(**settings: Any) -> Any:
        return identity(RewardConfig(by="endpoint", endpoint=RewardEndpointConfig(**settings)))

    here = key(url="http://a/score")
    placed = {
        "batch_size": 1,
        "concurrency": 9,
        "timeout_s": 1,
        "attempts": 1,
        "backoff_s": 0,
        "key_env": "A",
    }
    assert key(url="http://a/score", **placed) == here
    assert key(url="http://b/score") != here != key(url="http://a/score", version="2")


# In the stage


def run(folder: Path, config: RewardEndpointConfig, rows: list[Any]) -> stage.ScoreResult:
    inputs = stage.ScoreInputs(rows=write_rows(folder / "rows.jsonl", rows), problem=EXACT)
    return stage.run(RewardConfig(by="endpoint", endpoint=config), inputs, folder / "out", lambda event: None)


def test_samples_come_back_with_the_services_rewards_and_a_row_without_answer_by_its_right_one(
    tmp_path: Path,
) -> None:
    rows = [make_sample(QUESTIONS[0], "0.25"), make_sample(QUESTIONS[1], "1"), QUESTIONS[2]]
    rows.append(rows[0])  # once is enough
    with served() as server:
        result = run(tmp_path, endpoint(server, batch_size=2), rows)
        assert run(tmp_path / "again", endpoint(server, batch_size=1), rows).rows.digest == result.rows.digest
    assert [row.reward for row in read_examples(result.rows)] == [0.25, 1.0, 0.5, 0.25]
    assert (result.scored, result.reused, result.failed) == (3, 0, {})
    asked = [one for request in server.requests[:2] for one in request.json["inputs"]]
    system = {"role": "system", "content": "Say a number."}
    assert sorted(one["prompt"][1]["content"] for one in asked) == [row.input for row in QUESTIONS]
    assert all(one["prompt"][0] == system for one in asked)


def test_no_row_is_no_request(tmp_path: Path) -> None:
    with served() as server:
        assert run(tmp_path, endpoint(server), []).rows.rows == 0
    assert server.requests == []


def test_in_a_process_of_its_own_a_failure_is_the_users_and_a_rerun_asks_nothing(tmp_path: Path) -> None:
    forking.warm_up(preload=())
    store = Store(str(tmp_path / "store"))
    rows = write_rows(tmp_path / "rows.jsonl", [make_sample(QUESTIONS[0], "0.75")])
    inputs = stage.ScoreInputs(rows=rows, problem=EXACT)

    def fails_at_first(request: dict[str, Any]) -> Reply:
        return refusal(400, "not yet") if len(server.requests) == 1 else as_told(request)

    with served(fails_at_first) as server:
        config = RewardConfig(by="endpoint", endpoint=endpoint(server))
        with pytest.raises(UserError, match="HTTP 400: not yet"):
            compute(stage.STAGE, config, inputs, store, LaunchConfig(), lambda event: None)
        first, again = (
            compute(stage.STAGE, config, inputs, store, LaunchConfig(), lambda event: None).result
            for _ in "ab"
        )
    assert len(server.requests) == 2
    assert first == again
    assert [row.reward for row in read_examples(stage.ScoreResult.model_validate(first).rows)] == [0.75]
