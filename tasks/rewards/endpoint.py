"""Rewards over HTTP: answers are POSTed in batches, several requests in flight, and every one comes back rewarded."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING

from tasks.core.errors import UserError
from tasks.core.generators.base import Prompt
from tasks.core.generators.endpoint import Endpoint, EndpointConfig
from tasks.core.generators.pacing import LONGEST_WAIT_S, Pause, asked_wait_s, backoff_s
from tasks.rewards.endpoint_config import RewardEndpointConfig
from tasks.rewards.score_protocol import read_scores, request_body

if TYPE_CHECKING:
    import httpx

_CHECK_ATTEMPTS, _CHECK_TIMEOUT_S = 2, 30.0
_CHECKED: tuple[Prompt, str] = ([{"role": "user", "content": "What is 1 + 1?"}], "2")
_PASSING = (408, 409, 429)

Batch = tuple[Sequence[Prompt], Sequence[str]]


@dataclass(frozen=True)
class _Failure:
    """A request that may succeed when it is sent again."""

    reason: str
    rest_s: float = 0.0
    """Rest that the service asks of everybody."""
    limited: bool = False
    """A rate limit, not a fault, stopped it."""
    refused: Exception | None = None
    """Nobody listens there, or did not a moment ago."""


class RewardEndpoint:
    """A rewarding service. `field` is the configuration field that holds `config`: messages name the faulty setting
    with it, and the service by its address; its key is in none of them."""

    def __init__(self, config: RewardEndpointConfig, *, field: str = "reward.endpoint") -> None:
        self.config = config
        self._field = field
        # Keys and refusals are those of any other server.
        self._server = Endpoint(EndpointConfig(url=config.url, key_env=config.key_env), field)
        self._pause = Pause()
        self._answers = 0

    def check(self) -> None:
        """Have one short answer scored before any work is done. Raises UserError as `score` does, within a minute."""
        limits = {
            "attempts": min(self.config.attempts, _CHECK_ATTEMPTS),
            "timeout_s": min(self.config.timeout_s, _CHECK_TIMEOUT_S),
        }
        prompt, completion = _CHECKED
        RewardEndpoint(self.config.model_copy(update=limits), field=self._field).score([prompt], [completion])

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[float]:
        """The worth in [0, 1] of each completion, in order; `progress` is called in the caller's thread.

        Raises UserError when the service cannot be reached or refuses a request, does not answer after all attempts,
        or answers with anything but a number from 0 to 1 per input.
        """
        from anyio.from_thread import start_blocking_portal

        size, total = self.config.batch_size, len(completions)
        batches = [
            (prompts[start : start + size], completions[start : start + size])
            for start in range(0, total, size)
        ]
        if not batches:
            return []
        scored: SimpleQueue[int | None] = SimpleQueue()
        # The event loop has a thread of its own, because a caller may be inside a running one. An exception here, a
        # KeyboardInterrupt too, cancels every request in flight.
        with start_blocking_portal() as portal:
            future = portal.start_task_soon(self._score_all, batches, scored.put)
            future.add_done_callback(lambda _: scored.put(None))
            done = 0
            for count in iter(scored.get, None):
                done += count
                if progress:
                    progress(done, total)
            return future.result()

    async def _score_all(self, batches: Sequence[Batch], report: Callable[[int], None]) -> list[float]:
        import httpx

        found: dict[int, list[float]] = {}

        async def work(queue: Iterator[tuple[int, Batch]]) -> None:
            for number, batch in queue:
                found[number] = await self._score_batch(client, number, batch)
                report(len(found[number]))

        queue = iter(enumerate(batches))
        headers = {"Content-Type": "application/json"} | self._server.headers()
        limits = httpx.Limits(max_connections=self.config.concurrency)
        try:
            async with (
                httpx.AsyncClient(headers=headers, limits=limits, timeout=None) as client,
                asyncio.TaskGroup() as workers,
            ):
                for _ in range(min(self.config.concurrency, len(batches))):
                    workers.create_task(work(queue))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return [score for number in range(len(batches)) for score in found[number]]

    async def _score_batch(self, client: "httpx.AsyncClient", number: int, batch: Batch) -> list[float]:
        body = request_body(*batch)
        jitter = random.Random(number)
        failures = 0
        while True:
            await self._pause.over()
            outcome = await self._request(client, body, len(batch[1]))
            if isinstance(outcome, list):
                self._answers += 1
                return outcome
            failures += 1
            if failures == self.config.attempts and outcome.refused and not self._answers:
                fault = f"it cannot be reached: {outcome.reason}"
                raise self._fault("url", fault, "Start the service, or correct the url.") from outcome.refused
            if failures == self.config.attempts:
                fault = f"{outcome.reason} (after {failures} attempt{'' if failures == 1 else 's'})"
                raise self._fault(
                    "url", fault, "See what ails the service, or raise reward.endpoint.timeout_s."
                )
            wait_s = max(outcome.rest_s, backoff_s(failures, self.config.backoff_s, jitter))
            if outcome.limited or outcome.rest_s:
                self._pause.extend(wait_s)
            await asyncio.sleep(wait_s)

    async def _request(self, client: "httpx.AsyncClient", body: bytes, count: int) -> list[float] | _Failure:
        import httpx

        try:
            # A deadline for the whole answer: some servers keep a connection alive with blank lines.
            async with asyncio.timeout(self.config.timeout_s):
                response = await client.post(self.config.url, content=body)
        except TimeoutError:
            return _Failure(f"no answer within {self.config.timeout_s:g} s")
        # The connection's, or a body that is not packed as its header says.
        except httpx.RequestError as error:
            refused = error if isinstance(error, httpx.ConnectError) else None
            return _Failure(f"the connection failed: {str(error) or type(error).__name__}", refused=refused)
        if not response.is_success:
            return self._refused(response)
        rest_s = asked_wait_s(response.headers, datetime.now(UTC))
        self._pause.extend(min(rest_s, LONGEST_WAIT_S))
        try:
            return read_scores(response.content, count)
        except ValueError as error:
            mend = 'It has to return {"scores": [number, …]}, one from 0 to 1 for each input.'
            raise self._fault("url", str(error), mend) from error

    def _refused(self, response: "httpx.Response") -> _Failure:
        status, rest_s = response.status_code, asked_wait_s(response.headers, datetime.now(UTC))
        reason = f"HTTP {status}: {self._server.refusal(response)}"
        if status in (401, 403):
            state = "holds a key that it does not accept" if self._server.headers() else "is not set"
            raise self._fault(
                "key_env",
                f"it refuses access ({reason})",
                f"The environment variable {self.config.key_env} {state}.",
            )
        if not (status in _PASSING or status >= 500):
            raise self._fault("url", reason, "Correct the url, or what the service makes of such a request.")
        if rest_s > LONGEST_WAIT_S:
            raise self._fault("url", f"{reason}; it asks to wait {rest_s:.0f} s", "Go on when it is ready.")
        return _Failure(reason, rest_s, limited=status == 429)

    def _fault(self, setting: str, fault: str, mend: str) -> UserError:
        shown = self._server.without_key(f"the reward endpoint {self.config.url}: {fault}")
        return UserError(shown, field=f"{self._field}.{setting}", mend=mend)
