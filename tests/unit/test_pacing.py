"""How long to wait: what servers write into headers, and our own backoff."""

import asyncio
import random
import time
from datetime import UTC, datetime

import pytest

from tasks.core.generators.pacing import Pause, asked_wait_s, backoff_s, duration_s, retry_after_s

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("250ms", 0.25),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("30", 30.0),
        (" 0.5 ", 0.5),
        ("", None),
        ("soon", None),
        ("5 apples", None),
        ("-1s", None),
        ("2026-03-01T12:00:00Z", None),
    ],
)
def test_a_duration_is_read_in_every_form_servers_send(text: str, seconds: float | None) -> None:
    assert duration_s(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90.0),
        ("Sun, 01 Mar 2026 12:01:30 -0000", 90.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("tomorrow", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after_s(text, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "9s"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s"}, 9.0),
        (
            {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s", "retry-after": "2"},
            360.0,
        ),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-requests": "9s"}, 0.0),
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "9s"}, 0.0),
        ({"retry-after": "nonsense"}, 0.0),
    ],
)
def test_the_longest_wait_asked_for_counts_and_limits_with_something_left_do_not(
    headers: dict[str, str], seconds: float
) -> None:
    assert asked_wait_s(headers, NOW) == seconds


def test_backoff_doubles_within_its_spread_up_to_a_minute() -> None:
    for failures, whole in [(1, 2.0), (2, 4.0), (3, 8.0), (5, 32.0), (6, 60.0), (20, 60.0)]:
        waits = [backoff_s(failures, 2.0, random.Random(seed)) for seed in range(200)]
        assert whole / 2 <= min(waits) < whole * 0.55
        assert whole * 0.95 < max(waits) <= whole


def test_backoff_is_the_same_for_the_same_seed_and_differs_between_seeds() -> None:
    assert backoff_s(3, 1.0, random.Random("7:1")) == backoff_s(3, 1.0, random.Random("7:1"))
    assert backoff_s(3, 1.0, random.Random("7:1")) != backoff_s(3, 1.0, random.Random("7:2"))


def test_a_pause_holds_everybody_until_the_longest_rest_is_over() -> None:
    async def rest() -> float:
        pause = Pause()
        start = time.monotonic()
        pause.extend(0.2)
        pause.extend(0.05)  # the shorter rest does not end the longer one
        await asyncio.gather(pause.over(), pause.over())
        return time.monotonic() - start

    assert asyncio.run(rest()) >= 0.2
