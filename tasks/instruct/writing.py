"""Rounds of writing: ask for instructions by a mix of strategies, check them, have them answered, check the answers."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.examples import Example, make_example
from tasks.core.generators.base import Completion, Message, Sampling, Usage
from tasks.instruct.backtranslation import backtranslate, mark_prompt, read_mark
from tasks.instruct.checks import Checks
from tasks.instruct.config import WritingConfig
from tasks.instruct.evolving import BREADTH, IN_DEPTH, evolve, paraphrase, read_instruction
from tasks.instruct.request import Draft, Request, Strategy
from tasks.instruct.self_instruct import propose, read_tasks
from tasks.instruct.spending import Spending

Watch = Callable[[int, int], None]
"""Called with (rows kept, rows wanted)."""


class Round(BaseModel):
    """What one round brought: the kept rows, and of every operation what was asked, written, kept and rejected."""

    number: int
    kept: list[Example]
    instructions: list[str] = Field(default_factory=list)
    """Those that passed their checks; what comes later is compared with all of them, kept or not."""
    counts: dict[str, dict[str, int]] = Field(default_factory=dict)
    usage: Usage = Usage()
    """All that was used up to its end."""
    stopped: str = ""
    """The limit of the budget that ended it."""


@dataclass
class Writer:
    """Writes rows from seeds and texts with one teacher. `watch(rows kept, rows wanted)` is told of progress."""

    config: WritingConfig
    seeds: Sequence[Example]
    texts: Sequence[Example]
    checks: Checks
    spending: Spending
    rounds: list[Round] = field(default_factory=list)

    @property
    def written(self) -> list[Example]:
        """The rows kept so far."""
        return [row for one in self.rounds for row in one.kept]

    def write(self, folder: Path, watch: Watch) -> str:
        """Write until there are enough rows; why it ended before, or an empty text.

        Every round is kept in `folder`, and one that lies there already is not asked again.
        """
        folder.mkdir(parents=True, exist_ok=True)
        fruitless = 0
        while (missing := self.config.rows - len(self.written)) > 0:
            path = folder / f"round-{len(self.rounds) + 1}.json"
            if not path.exists():
                one = self._round(
                    len(self.rounds) + 1, missing, lambda: watch(len(self.written), self.config.rows)
                )
                part = path.with_suffix(".part")
                part.write_text(one.model_dump_json(), encoding="utf-8")
                part.replace(path)
            else:
                one = Round.model_validate_json(path.read_text(encoding="utf-8"))
                for text in one.instructions:
                    self.checks.keep(make_example(text, ""))
                self.spending.spent = one.usage
            self.rounds.append(one)
            watch(len(self.written), self.config.rows)
            if one.stopped:
                return f"the budget of {one.stopped} is used up"
            fruitless = 0 if one.kept else fruitless + 1
            if fruitless == self.config.patience:
                return f"nothing was kept of {fruitless} rounds in a row"
        return ""

    def _round(self, number: int, missing: int, watch: Callable[[], None]) -> Round:
        chance = random.Random(f"{self.config.seed}:{number}")
        this = Round(number=number, kept=[])
        counts: dict[str, Counter[str]] = {}
        requests = self._requests(chance, missing)
        sampling = self._sampling(self.config.instruction_tokens, self.config.temperature)
        answers = self._ask(number, "write", [request.prompt for request in requests], sampling, watch)
        drafts = self._read(requests, answers, counts)
        this.instructions = [draft.instruction for draft in drafts]
        self._answer(this, drafts, counts, missing, watch)
        this.stopped = self.spending.limit()
        this.counts = {operation: dict(count) for operation, count in sorted(counts.items())}
        this.usage = self.spending.usage
        return this

    def _requests(self, chance: random.Random, missing: int) -> list[Request]:
        """The requests of a round: no more than rows are missing; where calls are limited half of what is left of them,
        so that what is written is answered, too."""
        weights = self.config.mix.weights()
        count = min(self.config.per_round, missing)
        if self.config.budget.calls:
            count = min(count, (self.config.budget.calls - self.spending.usage.calls + 1) // 2)
        kinds: list[Strategy] = chance.choices(list(weights), list(weights.values()), k=count)
        return [self._request(kind, chance) for kind in kinds]

    def _request(self, kind: Strategy, chance: random.Random) -> Request:
        written = self.written
        if kind == "self_instruct":
            return propose(self.seeds, written, self.config.own_share, self.config.tasks_per_request, chance)
        if kind == "backtranslation":
            return backtranslate(chance.choice(self.texts))
        row = chance.choice([*self.seeds, *written])
        if kind == "paraphrase":
            return paraphrase(row)
        return evolve(
            row, BREADTH if chance.random() < self.config.breadth_share else chance.choice(list(IN_DEPTH))
        )

    def _read(
        self, requests: Sequence[Request], answers: Sequence[Completion], counts: dict[str, Counter[str]]
    ) -> list[Draft]:
        """The instructions that pass their checks; they count against each other in this order."""
        rows = {row.id: row for row in [*self.seeds, *self.written]}
        accepted: list[Draft] = []
        for request, answer in zip(requests, answers, strict=False):  # answers end with the budget
            count = counts.setdefault(request.operation, Counter())
            count["asked"] += 1
            if answer.finish == "error":
                count["no answer"] += 1
                continue
            several = request.strategy == "self_instruct"
            found = (
                read_tasks(answer.text, self.config.tasks_per_request)
                if several
                else [read_instruction(answer.text)]
            )
            if answer.finish == "length" and found:
                found.pop()  # cut in the middle
                count["cut"] += 1
            for text in found:
                draft = Draft(instruction=text, request=request)
                count["written"] += 1
                if reason := self.checks.instruction(draft, rows.get(request.parents[0])):
                    count[reason] += 1
                    continue
                self.checks.keep(make_example(text, ""))
                accepted.append(draft)
        return accepted

    def _answer(
        self,
        this: Round,
        drafts: Sequence[Draft],
        counts: dict[str, Counter[str]],
        missing: int,
        watch: Callable[[], None],
    ) -> None:
        """Have instructions answered, or marked where the answer was there first; the good ones are kept."""
        marked = [draft for draft in drafts if draft.request.response is not None]
        asked = [draft for draft in drafts if draft.request.response is None]
        sampling = self._sampling(self.config.response_tokens, self.config.response_temperature)
        prompts: list[list[Message]] = [[{"role": "user", "content": draft.instruction}] for draft in asked]
        for draft, answer in zip(
            asked, self._ask(this.number, "answer", prompts, sampling, watch), strict=False
        ):
            if reason := self.checks.response(draft, answer):
                counts[draft.request.operation][reason] += 1
            elif len(this.kept) < missing:
                this.kept.append(_row(draft, answer.text.strip(), this.number))
                counts[draft.request.operation]["kept"] += 1
            else:  # good as it may be, enough are there
                counts[draft.request.operation]["surplus"] += 1
        marks = self._sampling(16, self.config.response_temperature)
        prompts = [mark_prompt(draft.instruction, draft.request.response or "") for draft in marked]
        for draft, answer in zip(marked, self._ask(this.number, "mark", prompts, marks, watch), strict=False):
            mark = read_mark(answer.text)
            if mark is None or mark < self.config.least_mark:
                counts[draft.request.operation]["low mark" if mark else "no mark"] += 1
            elif len(this.kept) < missing:
                this.kept.append(_row(draft, draft.request.response or "", this.number, mark=mark))
                counts[draft.request.operation]["kept"] += 1
            else:  # good as it may be, enough are there
                counts[draft.request.operation]["surplus"] += 1

    def _ask(
        self,
        number: int,
        what: str,
        prompts: Sequence[list[Message]],
        sampling: Sampling,
        watch: Callable[[], None],
    ) -> list[Completion]:
        streams = [_stream(f"{number}:{what}:{place}") for place in range(len(prompts))]
        return self.spending.ask(prompts, sampling, streams, watch)

    def _sampling(self, tokens: int, temperature: float) -> Sampling:
        return Sampling(
            max_new_tokens=tokens, temperature=temperature, top_p=self.config.top_p, seed=self.config.seed
        )


def _row(draft: Draft, response: str, number: int, **facts: object) -> Example:
    """A kept row: what was done to which rows, and the request's own words, stand with it."""
    request = draft.request
    recorded = {
        "operation": request.operation,
        "parents": request.parents,
        "prompt": request.prompt[-1]["content"],
    }
    single = len(request.parents) == 1 and request.strategy != "backtranslation"
    return make_example(
        draft.instruction,
        response,
        origin="synthetic",
        parent=request.parents[0] if single else None,
        step=number,
        facts=recorded | facts,
    )


def _stream(words: str) -> int:
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1
