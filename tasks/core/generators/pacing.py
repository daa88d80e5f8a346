"""When a request to a rate-limited server may go out: what it asks for, and what we wait of our own."""

import asyncio
import random
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT_S = 600.0
"""A longer rest than this means that a quota is used up: not worth waiting for inside a run."""

_LONGEST_BACKOFF_S = 60.0
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|h|m|s))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")


def duration_s(text: str) -> float | None:
    """Seconds in "250ms", "6m0s", "1h2m3.5s" or "30" (seconds without a unit); None for any other text."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(text))
    return None


def retry_after_s(text: str, now: datetime) -> float | None:
    """Seconds from `now` that a Retry-After header asks for, as a number or an HTTP date (RFC 9110, 10.2.3).

    A date in the past is 0; text that is neither is None.
    """
    if (seconds := duration_s(text)) is not None:
        return seconds
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


def asked_wait_s(headers: Mapping[str, str], now: datetime) -> float:
    """Seconds a server asks every client to wait: Retry-After, and the reset of each limit with nothing left.

    Limits are the headers `x-ratelimit-remaining-<what>` with `x-ratelimit-reset-<what>`, as OpenAI sends
    them; `headers` must be keyed in lower case. 0 when nothing is asked.
    """
    waits = [retry_after_s(headers["retry-after"], now)] if "retry-after" in headers else []
    for name, value in headers.items():
        # Exactly zero: some servers send -1 for "unlimited".
        if name.startswith("x-ratelimit-remaining-") and value.strip() == "0":
            waits.append(duration_s(headers.get(name.replace("remaining", "reset"), "")))
    return max((wait for wait in waits if wait is not None), default=0.0)


def backoff_s(failures: int, first_s: float, jitter: random.Random) -> float:
    """Seconds to wait after the `failures`-th failure in a row (from 1): doubling, then spread by `jitter`.

    The spread is between half and the whole of it ("equal jitter"), so that workers that failed together do
    not come back together.
    """
    whole = min(_LONGEST_BACKOFF_S, first_s * 2 ** (failures - 1))
    return whole * jitter.uniform(0.5, 1.0)


class Pause:
    """A rest that all workers of one server keep together."""

    def __init__(self) -> None:
        self._until = 0.0

    def extend(self, seconds: float) -> None:
        """Let nobody go on for so many seconds from now; a longer rest already asked for stays."""
        self._until = max(self._until, time.monotonic() + seconds)

    async def over(self) -> None:
        """Return once nobody has to rest any longer."""
        while (left := self._until - time.monotonic()) > 0:
            await asyncio.sleep(left)
