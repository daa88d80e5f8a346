"""Rounds of batched prompts: ask, read by number, ask again alone what is missing, stop what is settled."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.examples import Example
from tasks.core.generators.base import Completion, Generator, Prompt, Sampling, Usage
from tasks.core.generators.openai_compatible import EndpointFailed
from tasks.label.batches import in_batches, permuted
from tasks.label.config import LabellingConfig
from tasks.label.prompting import ANSWER_OVERHEAD, batch_prompt, single_prompt
from tasks.label.reading import Ballot, read_batch, read_single
from tasks.label.voting import settled
from tasks.problems.base import Problem

Counting = Callable[[Prompt], int]
"""The tokens of a prompt, or an estimate of them."""
Watch = Callable[[int, int, int], None]
"""Called with (round, answered in it, asked in it)."""
FAULTS = ("missing", "malformed", "repeated", "out_of_range")


class Round(BaseModel):
    """What one round asked for and was answered: a ballot per row by its number, null where nothing could be read."""

    number: int
    ballots: dict[int, Ballot | None]
    counts: dict[str, int] = Field(default_factory=dict)
    """Lines of each fault, rows asked alone (`alone`), batches that were halved (`halved`), rows of batches that a busy
    server left without an answer (`unanswered`)."""
    usage: Usage = Usage()
    counted_tokens: int = 0
    """Tokens of its prompts as counted beforehand."""
    seconds: float = 0.0


@dataclass
class Labeller:
    """Asks one generator for the answers to the rows of one problem.

    `count` counts the tokens of a prompt and `context` is the most that prompt and answer may have, 0 without limit.
    """

    generator: Generator
    problem: Problem
    config: LabellingConfig
    count: Counting
    context: int = 0
    demonstrations: Sequence[Example] = ()

    def label(self, rows: Sequence[Example], folder: Path, watch: Watch | None = None) -> list[Round]:
        """All rounds. Every one is written to `folder` as it ends, and one that lies there already is not asked again.

        Raises what the generator raises, with the finished rounds kept.
        """
        folder.mkdir(parents=True, exist_ok=True)
        rounds: list[Round] = []
        for number in range(1, self.config.rounds + 1):
            pending = self.pending(rounds, len(rows))
            if not pending:
                break
            path = folder / f"round-{number}.json"
            if not path.exists():
                done = self._round(number, rows, pending, watch)
                part = path.with_suffix(".part")
                part.write_text(done.model_dump_json(), encoding="utf-8")
                part.replace(path)
            rounds.append(Round.model_validate_json(path.read_text(encoding="utf-8")))
        return rounds

    def pending(self, rounds: Sequence[Round], rows: int) -> list[int]:
        """The rows that the next round asks for."""
        if not self.config.stop_early:
            return list(range(rows))
        return [row for row in range(rows) if not settled(ballots_of(rounds, row))]

    def _round(self, number: int, rows: Sequence[Example], pending: list[int], watch: Watch | None) -> Round:
        begun, before = time.monotonic(), self.generator.usage.model_copy()
        this = Round(number=number, ballots=dict.fromkeys(pending))
        batches, counts = self._batches(number, rows, pending), Counter[str]()

        def progress(done: int, total: int) -> None:
            if watch:
                watch(number, round(done / total * len(pending)), len(pending))

        single: list[int] = []
        unread: list[int] = []
        while batches:
            asked = [one for one in batches if len(one) > 1]
            single += [one[0] for one in batches if len(one) == 1]
            batches = []
            prompts = [self._batch_prompt([rows[row] for row in one]) for one in asked]
            answers = self._ask(this, prompts, [len(one) for one in asked], rows, asked, progress)
            for one, answer in zip(asked, answers, strict=True):
                if answer.passing:
                    counts["unanswered"] += len(one)
                    continue
                if answer.finish == "error":  # too long, as a rule
                    counts["halved"] += 1
                    middle = (len(one) + 1) // 2
                    batches += [one[:middle], one[middle:]]
                    continue
                found = read_batch(self.problem, [rows[row] for row in one], answer.text)
                this.ballots |= {one[place]: ballot for place, ballot in found.ballots.items()}
                counts.update({fault: getattr(found, fault) for fault in FAULTS})
                unread += [row for place, row in enumerate(one) if place not in found.ballots]
        self._alone(this, rows, single, unread, counts, progress)
        this.counts = {name: counts[name] for name in (*FAULTS, "alone", "halved", "unanswered")}
        this.usage = _difference(self.generator.usage, before)
        this.seconds = time.monotonic() - begun
        return this

    def _alone(
        self,
        this: Round,
        rows: Sequence[Example],
        single: Sequence[int],
        unread: Sequence[int],
        counts: Counter[str],
        progress: Callable[[int, int], None],
    ) -> None:
        """Ask for the rows that no batch asked for, and again, as often as is allowed, for all without an answer."""
        for attempt in range(self.config.ask_again + 1):
            alone = [row for row in (*single, *(unread if attempt else ())) if this.ballots[row] is None]
            counts["alone"] += len(alone)
            prompts = [single_prompt(self.problem, rows[row], self.demonstrations) for row in alone]
            asked = [[row] for row in alone]
            answers = self._ask(this, prompts, [1] * len(alone), rows, asked, progress, attempt)
            for row, answer in zip(alone, answers, strict=True):
                if answer.finish != "error":
                    this.ballots[row] = read_single(self.problem, rows[row], answer.text)

    def _ask(
        self,
        this: Round,
        prompts: Sequence[Prompt],
        sizes: Sequence[int],
        rows: Sequence[Example],
        asked: Sequence[Sequence[int]],
        progress: Callable[[int, int], None],
        attempt: int = 0,
    ) -> list[Completion]:
        if not prompts:
            return []
        this.counted_tokens += sum(map(self.count, prompts))
        longest = max(map(self._answer_tokens, sizes))
        sampling = Sampling(
            max_new_tokens=min(longest, 32768),
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            seed=self.config.seed,
        )
        streams = [_stream(this.number, attempt, [rows[row].id for row in one]) for one in asked]
        try:
            return self.generator.generate(prompts, sampling, progress, streams=streams)
        except EndpointFailed as failure:
            if failure.passing or max(sizes) == 1:
                raise
            return [Completion(text="", finish="error", error=str(failure)) for _ in prompts]

    def _batches(self, number: int, rows: Sequence[Example], pending: list[int]) -> list[list[int]]:
        """The batches of a round: of all rows, or of what is left of the batches that the rows stand in."""
        size, left = self.config.batch_size, set(pending)
        groups = [pending]
        if not self.config.refill:
            order = permuted(range(len(rows)), self.config.seed, 0)
            groups = [order[begin : begin + size] for begin in range(0, len(order), size)]
        batches: list[list[int]] = []
        for group in groups:
            order = permuted([row for row in group if row in left], self.config.seed, number)
            batches += in_batches(order, size, lambda some: self._fits([rows[row] for row in some]))
        return batches

    def _fits(self, rows: Sequence[Example]) -> bool:
        if not self.context:
            return True
        return self.count(self._batch_prompt(rows)) + self._answer_tokens(len(rows)) <= self.context

    def _batch_prompt(self, rows: Sequence[Example]) -> Prompt:
        return batch_prompt(self.problem, rows, self.demonstrations)

    def _answer_tokens(self, rows: int) -> int:
        each = self.config.max_new_tokens or self.problem.max_new_tokens
        return each if rows == 1 else rows * (each + ANSWER_OVERHEAD)


def ballots_of(rounds: Sequence[Round], row: int) -> list[Ballot | None]:
    """A row's ballots in the rounds that asked for it."""
    return [one.ballots[row] for one in rounds if row in one.ballots]


def _stream(number: int, attempt: int, ids: Sequence[str]) -> int:
    """The random stream of a prompt: by its round and rows, whatever else is asked with it."""
    words = f"{number}:{attempt}:{','.join(ids)}".encode()
    return int.from_bytes(hashlib.sha256(words).digest()[:8], "big") >> 1


def _difference(after: Usage, before: Usage) -> Usage:
    return Usage(**{name: getattr(after, name) - getattr(before, name) for name in Usage.model_fields})
