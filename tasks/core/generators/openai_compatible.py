"""A model behind any server that speaks the OpenAI chat completions protocol: hosted, vLLM, llama.cpp, ..."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING

from tasks.core.generators.base import Completion, Progress, Prompt, Sampling, Usage, streams_of
from tasks.core.generators.endpoint import Endpoint, EndpointConfig
from tasks.core.generators.openai_protocol import read_completion, read_error, request_body
from tasks.core.generators.pacing import LONGEST_WAIT_S, Pause, asked_wait_s, backoff_s

if TYPE_CHECKING:
    import httpx

_DEAD_AFTER = 16
"""So many prompts in a row without an answer, each after all its attempts: the server is gone."""


class EndpointFailed(Exception):
    """Not one prompt of a call was answered; says how many there were and the last reason. `passing` is true when the
    same call may succeed later: a rate limit, a server that is down."""

    def __init__(self, message: str, *, passing: bool = False) -> None:
        self.passing = passing
        super().__init__(message)


@dataclass(frozen=True)
class _Failure:
    """One request without a completion."""

    reason: str
    passing: bool
    """The same request may succeed later."""
    rest_s: float = 0.0
    """Rest that the server asks of everybody."""
    limited: bool = False
    """A rate limit, not a fault, stopped it."""
    refused: Exception | None = None
    """Nobody listens there, or did not a moment ago."""


class OpenAICompatible:
    """Generator over HTTP: several requests in flight, failures retried, rate limits kept.

    `field` is the configuration field that holds `config`: messages name the faulty setting with it. `usage`
    counts a prompt's first request as a call, further ones as retries. One call of `generate` at a time.
    """

    def __init__(self, config: EndpointConfig, *, field: str = "endpoint") -> None:
        self.config, self.usage = config, Usage()
        self._endpoint = Endpoint(config, field)
        self._model = config.model
        self._pause = Pause()
        self._answers = 0
        self._unanswered_in_a_row = 0

    def check(self) -> str:
        """Reach the server before any work is done, and return the name of the model that it will be asked for.

        Raises UserError when it cannot be reached, refuses the key, does not speak the protocol or does not
        serve the model. A server without a list of models passes when the configuration names one.
        """
        self._model = self._endpoint.check()
        return self._model

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        progress: Progress | None = None,
        *,
        streams: Sequence[int] | None = None,
    ) -> list[Completion]:
        """One completion per prompt, in the prompts' order; `progress` is called in the caller's thread.

        A prompt that fails for good is a completion with finish "error". Raises UserError when the server
        refuses everything from the start (unreachable, wrong key, unknown model), EndpointFailed when every
        prompt fails.
        """
        from anyio.from_thread import start_blocking_portal

        if not prompts:
            return []
        if not self._model:
            self.check()
        answered: SimpleQueue[int | None] = SimpleQueue()
        # The event loop has a thread of its own, because a caller may be inside a running one. An exception
        # here, a KeyboardInterrupt too, cancels every request in flight.
        with start_blocking_portal() as portal:
            drawn = streams_of(prompts, streams)
            future = portal.start_task_soon(self._answer_all, prompts, drawn, sampling, answered.put)
            future.add_done_callback(lambda _: answered.put(None))
            for done, _ in enumerate(iter(answered.get, None), start=1):
                if progress:
                    progress(done, len(prompts))
            completions = future.result()
        if all(completion.finish == "error" for completion in completions):
            raise EndpointFailed(
                f"{self._endpoint.url} answered none of {len(prompts)} prompts (model {self._model!r}); "
                f"the last reason: {completions[-1].error}",
                passing=any(completion.passing for completion in completions),
            )
        return completions

    async def _answer_all(
        self,
        prompts: Sequence[Prompt],
        streams: Sequence[int],
        sampling: Sampling,
        report: Callable[[int], None],
    ) -> list[Completion]:
        import httpx

        completions: dict[int, Completion] = {}

        async def work(queue: Iterator[tuple[int, Prompt]]) -> None:
            for index, prompt in queue:
                completions[index] = await self._answer(client, streams[index], prompt, sampling)
                report(index)

        queue = iter(enumerate(prompts))
        self._unanswered_in_a_row = 0
        limits = httpx.Limits(max_connections=self.config.concurrency)
        try:
            async with (
                httpx.AsyncClient(headers=self._endpoint.headers(), limits=limits, timeout=None) as client,
                asyncio.TaskGroup() as workers,
            ):
                for _ in range(min(self.config.concurrency, len(prompts))):
                    workers.create_task(work(queue))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return [completions[index] for index in range(len(prompts))]

    async def _answer(
        self, client: "httpx.AsyncClient", stream: int, prompt: Prompt, sampling: Sampling
    ) -> Completion:
        if self._unanswered_in_a_row >= _DEAD_AFTER:
            return self._failed("not sent: the server has stopped answering", passing=True)
        body = request_body(self._model, prompt, sampling, stream)
        jitter = random.Random(f"{sampling.seed}:{stream}")
        self.usage.calls += 1
        failures = 0
        answers_before = self._answers
        while True:
            await self._pause.over()
            outcome = await self._request(client, body)
            if isinstance(outcome, Completion):
                self._unanswered_in_a_row = 0
                self.usage.prompt_tokens += outcome.prompt_tokens
                self.usage.completion_tokens += outcome.completion_tokens
                self.usage.errors += outcome.finish == "error"
                return outcome
            # A limit below the concurrency turns most of a burst away every time. While others are being
            # answered, waiting for one's turn is no failure.
            if not (outcome.limited and self._answers > answers_before):
                failures += 1
            answers_before = self._answers
            wait_s = max(outcome.rest_s, backoff_s(max(1, failures), self.config.backoff_s, jitter))
            if outcome.limited or outcome.rest_s:
                self._pause.extend(wait_s)
            if not outcome.passing:
                self._unanswered_in_a_row = 0
                return self._failed(outcome.reason)
            if failures >= self.config.attempts:
                if outcome.refused and not self._answers:
                    raise self._endpoint.unreachable(outcome.refused) from outcome.refused
                self._unanswered_in_a_row += 1
                return self._failed(f"{outcome.reason} (after {failures} attempts)", passing=True)
            self.usage.retries += 1
            await asyncio.sleep(wait_s)

    async def _request(self, client: "httpx.AsyncClient", body: dict[str, object]) -> Completion | _Failure:
        import httpx

        try:
            # A deadline for the whole answer: some servers keep a connection alive with blank lines.
            async with asyncio.timeout(self.config.timeout_s):
                response = await client.post(f"{self._endpoint.url}/chat/completions", json=body)
        except TimeoutError:
            return _Failure(f"no answer within {self.config.timeout_s:g} s", passing=True)
        # The connection's, or a body that is not packed as its header says.
        except httpx.RequestError as error:
            refused = error if isinstance(error, httpx.ConnectError) else None
            reason = f"the connection failed: {str(error) or type(error).__name__}"
            return _Failure(reason, passing=True, refused=refused)
        rest_s = asked_wait_s(response.headers, datetime.now(UTC))
        if not response.is_success:
            return self._refused(response, rest_s)
        self._pause.extend(min(rest_s, LONGEST_WAIT_S))
        try:
            completion = read_completion(response.content)
        except ValueError as error:
            return _Failure(self._endpoint.without_key(str(error)), passing=True)
        self._answers += 1
        return completion

    def _refused(self, response: "httpx.Response", rest_s: float) -> _Failure:
        status = response.status_code
        if not self._answers and status in (401, 403):
            raise self._endpoint.denied(response)
        if not self._answers and status == 404:
            raise self._endpoint.unknown_model(self._model, response)
        reason = f"HTTP {status}: {self._endpoint.refusal(response)}"
        # OpenAI says 429 also when an account is out of credit, which no waiting mends.
        out_of_credit = read_error(response.content)[0] == "insufficient_quota"
        if out_of_credit or not (status in (408, 409, 429) or status >= 500):
            return _Failure(reason, passing=False)
        if rest_s > LONGEST_WAIT_S:
            return _Failure(f"{reason}; the server asks to wait {rest_s:.0f} s", passing=False)
        return _Failure(reason, passing=True, rest_s=rest_s, limited=status == 429)

    def _failed(self, reason: str, *, passing: bool = False) -> Completion:
        self.usage.errors += 1
        return Completion(text="", finish="error", error=reason, passing=passing)
