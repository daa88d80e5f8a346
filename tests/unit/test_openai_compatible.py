"""The generator over HTTP against a real small server that misbehaves as scripted."""

import asyncio
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.core.generators.base import Completion, Prompt, Sampling
from tasks.core.generators.endpoint import EndpointConfig
from tasks.core.generators.openai_compatible import EndpointFailed, OpenAICompatible
from tests.scripted_server import Reply, Script, ScriptedServer, completion, echo, refusal


@pytest.fixture(autouse=True)
def no_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def prompts(*texts: str) -> list[Prompt]:
    return [[{"role": "user", "content": text}] for text in texts]


def generator(url: str, **settings: Any) -> OpenAICompatible:
    settings = {"model": "scripted", "backoff_s": 0.01, **settings}
    return OpenAICompatible(EndpointConfig(url=url, **settings), field="teacher")


def ask(
    script: Script, *texts: str, **settings: Any
) -> tuple[list[Completion], ScriptedServer, OpenAICompatible]:
    """Completions of `texts` from a server with this script; the server and the generator to look at."""
    with ScriptedServer(script) as server:
        made = generator(server.url, **settings)
        return made.generate(prompts(*texts), Sampling()), server, made


def unused_url() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


# What is sent, what comes back


def test_completions_come_in_the_order_of_the_prompts_whatever_order_the_answers_arrive_in() -> None:
    def later_prompts_first(request: dict[str, Any]) -> Reply:
        text = request["messages"][-1]["content"]
        return completion(text.upper(), delay_s=0.02 * (12 - int(text[1:])))

    texts = [f"p{number}" for number in range(12)]
    answers, _, made = ask(later_prompts_first, *texts, concurrency=6)
    assert [answer.text for answer in answers] == [text.upper() for text in texts]
    assert made.usage.model_dump() == {
        "calls": 12, "prompt_tokens": 36, "completion_tokens": 24, "retries": 0, "errors": 0,
        "saved_tokens": 0,
    }  # fmt: skip


def test_the_request_carries_the_sampling_and_a_seed_of_its_own_for_every_prompt() -> None:
    sampling = Sampling(max_new_tokens=7, temperature=0.5, top_p=0.9, top_k=40, stop=("END",), seed=100)
    with ScriptedServer() as server:
        generator(server.url, concurrency=1).generate(prompts("a", "b"), sampling)
    assert [request.json for request in server.requests] == [
        {
            "model": "scripted",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 40,
            "stop": ["END"],
            "seed": seed,
        }
        for text, seed in [("a", 100), ("b", 101)]
    ]


def test_fields_outside_the_standard_and_empty_ones_are_not_sent() -> None:
    _, server, _ = ask(echo, "a")
    assert not {"top_k", "stop"} & server.requests[0].json.keys()
    assert "Authorization" not in server.requests[0].headers


def test_running_the_same_call_again_sends_the_same_requests() -> None:
    first, second = (sorted(str(r.json) for r in ask(echo, *"abcdef")[1].requests) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (completion("yes"), Completion(text="yes", prompt_tokens=3, completion_tokens=2)),
        (
            completion("ye", "length"),
            Completion(text="ye", finish="length", prompt_tokens=3, completion_tokens=2),
        ),
        (completion("yes", tokens=None), Completion(text="yes")),
        (completion("", tokens=(3, 0)), Completion(text="", prompt_tokens=3)),
        (
            completion(None, "length"),
            Completion(text="", finish="length", prompt_tokens=3, completion_tokens=2),
        ),
        (
            completion(None),
            Completion(
                text="",
                finish="error",
                prompt_tokens=3,
                completion_tokens=2,
                error="no text (finish_reason stop)",
            ),
        ),
        (
            completion("half a", "content_filter", tokens=None),
            Completion(text="", finish="error", error="the server's content filter withheld the answer"),
        ),
    ],
)
def test_an_answer_becomes_a_completion(reply: Reply, expected: Completion) -> None:
    answers, _, made = ask([completion("first"), reply], "first", "second", concurrency=1)
    assert answers[1] == expected
    assert made.usage.errors == (expected.finish == "error")


def test_no_prompts_need_no_server() -> None:
    assert generator(unused_url()).generate([], Sampling()) == []


def test_progress_is_told_in_the_callers_thread() -> None:
    told: list[tuple[int, int, int]] = []
    with ScriptedServer() as server:
        generator(server.url).generate(
            prompts(*"abc"), Sampling(), lambda done, total: told.append((done, total, threading.get_ident()))
        )
    assert told == [(done, 3, threading.get_ident()) for done in (1, 2, 3)]


def test_as_many_requests_are_in_flight_as_allowed_and_no_more() -> None:
    together = threading.Barrier(5)

    def wait_for_the_others(request: dict[str, Any]) -> Reply:
        together.wait(timeout=20)
        return echo(request)

    answers, server, _ = ask(wait_for_the_others, *[str(number) for number in range(20)], concurrency=5)
    assert server.peak_concurrency == 5
    assert len(answers) == 20


def test_it_works_inside_a_running_event_loop() -> None:
    async def caller() -> str:
        return ask(echo, "a")[0][0].text

    assert asyncio.run(caller()) == "A"


# Failures that pass


@pytest.mark.parametrize(
    "failure",
    [
        *(refusal(status, "come back later") for status in (408, 409, 429, 500, 502, 503, 529)),
        Reply(drop=True),
        Reply(body="<html>busy</html>"),
        Reply(body=""),
        Reply(body={"choices": []}),
        Reply(body={"object": "something else"}),
        completion("too late", delay_s=30.0),
    ],
    ids=lambda reply: f"{reply.status}-{'drop' if reply.drop else str(reply.body)[:25]}",
)
def test_a_failure_that_may_pass_is_tried_again(failure: Reply) -> None:
    answers, server, made = ask([failure, completion("at last")], "a", timeout_s=0.5)
    assert answers == [Completion(text="at last", prompt_tokens=3, completion_tokens=2)]
    assert len(server.requests) == 2
    assert (made.usage.calls, made.usage.retries, made.usage.errors) == (1, 1, 0)


def test_a_prompt_that_fails_every_time_is_an_error_after_its_attempts_and_costs_no_other() -> None:
    def fail_b(request: dict[str, Any]) -> Reply:
        return refusal(500, "boom") if request["messages"][0]["content"] == "b" else echo(request)

    answers, server, made = ask(fail_b, "a", "b", "c", attempts=3)
    assert [answer.text for answer in answers] == ["A", "", "C"]
    assert (answers[1].finish, answers[1].error) == ("error", "HTTP 500: boom (after 3 attempts)")
    assert [request.prompt for request in server.requests].count("b") == 3
    assert (made.usage.calls, made.usage.retries, made.usage.errors) == (3, 2, 1)


def test_when_every_prompt_fails_the_call_raises_with_the_last_reason() -> None:
    with pytest.raises(EndpointFailed, match=r"none of 2 prompts \(model 'scripted'\).*HTTP 503: overloaded"):
        ask(lambda _: refusal(503, "overloaded"), "a", "b", attempts=2)


def test_a_server_that_dies_is_not_asked_for_every_prompt_that_is_left() -> None:
    dying = [completion("alive"), *[Reply(drop=True)] * 50]
    answers, server, _ = ask(dying, *[str(number) for number in range(40)], concurrency=1, attempts=1)
    assert len(server.requests) == 1 + 16
    assert answers[0].text == "alive"
    assert {answer.finish for answer in answers[1:]} == {"error"}
    assert answers[-1].error == "not sent: the server has stopped answering"


# Rate limits


@pytest.mark.parametrize(
    "limit",
    [
        refusal(429, "slow down", headers={"Retry-After": "1"}),
        completion("A", headers={"X-RateLimit-Remaining-Requests": "0", "X-RateLimit-Reset-Requests": "1s"}),
        completion("A", headers={"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1000ms"}),
    ],
)
def test_when_a_limit_is_used_up_all_workers_wait(limit: Reply) -> None:
    first = threading.Lock()

    def limit_once(request: dict[str, Any]) -> Reply:
        # The others answer later, so that their workers know of the limit before they go on.
        return limit if first.acquire(blocking=False) else completion("A", delay_s=0.3)

    answers, server, _ = ask(limit_once, *"aaaaaaaa", concurrency=4)
    start = server.requests[0].time
    assert sum(request.time < start + 1.0 for request in server.requests) <= 4
    assert len(server.requests) == 8 + (limit.status == 429)
    assert [answer.text for answer in answers] == ["A"] * 8


def test_a_limit_far_below_the_concurrency_fails_no_prompt() -> None:
    lock, last = threading.Lock(), [0.0]

    def one_at_a_time(request: dict[str, Any]) -> Reply:
        with lock:
            if time.monotonic() - last[0] < 0.04:
                return refusal(429, "slow down", headers={"Retry-After": "0.05"})
            last[0] = time.monotonic()
        return echo(request)

    answers, _, made = ask(one_at_a_time, *"abcdefghijklmnop", concurrency=8, attempts=3)
    assert "".join(answer.text for answer in answers) == "ABCDEFGHIJKLMNOP"
    assert made.usage.retries > 16


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (refusal(429, "slow down", headers={"Retry-After": "86400"}), "the server asks to wait 86400 s"),
        (
            refusal(429, "You exceeded your current quota", "insufficient_quota"),
            "exceeded your current quota",
        ),
    ],
)
def test_a_limit_not_worth_waiting_for_ends_at_once(reply: Reply, reason: str) -> None:
    with ScriptedServer([reply]) as server, pytest.raises(EndpointFailed, match=reason):
        generator(server.url).generate(prompts("a"), Sampling())
    assert len(server.requests) == 1


# Failures that do not pass


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_prompt_the_server_refuses_is_an_error_and_not_tried_again(status: int) -> None:
    def refuse_long(request: dict[str, Any]) -> Reply:
        long = len(request["messages"][0]["content"]) > 5
        return refusal(status, "longer than the context") if long else echo(request)

    answers, server, _ = ask(refuse_long, "a", "much too long", "b")
    assert [answer.text for answer in answers] == ["A", "", "B"]
    assert answers[1].error == f"HTTP {status}: longer than the context"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "field", "mend"),
    [
        (401, "teacher.key_env", "The environment variable OPENAI_API_KEY is not set"),
        (403, "teacher.key_env", "The environment variable OPENAI_API_KEY is not set"),
        (404, "teacher.model", "Correct the model's name"),
    ],
)
def test_access_refused_from_the_start_is_the_users_to_mend(status: int, field: str, mend: str) -> None:
    with ScriptedServer(lambda _: refusal(status, "no")) as server, pytest.raises(UserError) as caught:
        generator(server.url, concurrency=2).generate(prompts(*"abcdefgh"), Sampling())
    assert caught.value.field == field
    assert caught.value.mend.startswith(mend)
    assert server.url in caught.value.fault
    assert "'scripted'" in caught.value.fault
    assert len(server.requests) <= 2


def test_access_refused_to_one_prompt_after_others_were_answered_is_an_error_of_that_prompt() -> None:
    answers, _, _ = ask([completion("A"), refusal(403, "not this"), completion("C")], *"abc", concurrency=1)
    assert [(answer.text, answer.error) for answer in answers] == [
        ("A", ""),
        ("", "HTTP 403: not this"),
        ("C", ""),
    ]


def test_a_server_that_is_not_there_is_the_users_to_mend() -> None:
    url = unused_url()
    for step in (
        lambda: generator(url).check(),
        lambda: generator(url).generate(prompts("a", "b"), Sampling()),
        lambda: generator(url, model="").generate(prompts("a"), Sampling()),
    ):
        with pytest.raises(UserError) as caught:
            step()
        assert caught.value.field == "teacher.url"
        assert f"{url} cannot be reached" in caught.value.fault
        assert "Start the server" in caught.value.mend


def test_an_interrupt_ends_the_call_with_requests_in_flight() -> None:
    main = threading.main_thread().ident
    assert main is not None

    def interrupt(request: dict[str, Any]) -> Reply:
        if request["messages"][0]["content"] == "b":
            signal.pthread_kill(main, signal.SIGINT)
        return completion("never", delay_s=300.0)

    before = threading.active_count()
    with ScriptedServer(interrupt) as server:
        with pytest.raises(KeyboardInterrupt):
            generator(server.url, timeout_s=300.0).generate(prompts("a", "b", "c"), Sampling())
        assert not [thread for thread in threading.enumerate() if "portal" in thread.name]
        assert len(server.requests) <= 3
    assert threading.active_count() <= before + 3  # the server's own, still asleep


def test_an_exception_in_progress_reaches_the_caller_and_ends_the_call() -> None:
    def cancelled(done: int, total: int) -> None:
        raise RuntimeError(f"cancelled at {done} of {total}")

    with ScriptedServer() as server, pytest.raises(RuntimeError, match="cancelled at 1 of 200"):
        generator(server.url, concurrency=1).generate(prompts(*["a"] * 200), Sampling(), cancelled)


def test_a_body_that_is_not_packed_as_its_header_says_is_asked_for_again() -> None:
    broken = Reply(body="not packed", headers={"Content-Encoding": "gzip"})
    with ScriptedServer([broken, completion("one"), completion("two")]) as server:
        asked = generator(server.url, concurrency=1)
        assert [one.text for one in asked.generate(prompts("a", "b"), Sampling())] == ["one", "two"]
        assert (asked.usage.calls, asked.usage.retries, asked.usage.errors) == (2, 1, 0)


def test_a_server_that_is_away_for_a_moment_is_asked_again() -> None:
    """It restarts, say; a stage's process has had no answer from it yet."""
    url = unused_url()
    asked = generator(url, attempts=20, backoff_s=0.2)
    with ThreadPoolExecutor() as threads:
        answers = threads.submit(asked.generate, prompts("a"), Sampling())
        time.sleep(0.3)
        with ScriptedServer([completion("here again")], port=int(url.split(":")[2].split("/")[0])):
            assert [one.text for one in answers.result()] == ["here again"]
    assert asked.usage.retries > 0
