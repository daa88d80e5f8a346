"""Which instructions and responses are kept; every rejection with its reason."""

from collections.abc import Iterable

from tasks.core.examples import Example
from tasks.core.generators.base import Completion
from tasks.filter.contamination import HeldOut
from tasks.filter.duplicates import normalise
from tasks.filter.rouge import RougeIndex, spaceless, tokenise
from tasks.instruct.config import WritingConfig
from tasks.instruct.evolving import STOP_WORDS, evolution_failed, response_failed
from tasks.instruct.language import foreign
from tasks.instruct.request import Draft

_REFUSALS = (
    "i cannot help",
    "i can't help",
    "i can't assist",
    "i cannot assist",
    "as an ai language model",
    "i'm unable to",
)


class Checks:
    """The rules, and what was kept so far: a kept row counts against later ones."""

    def __init__(self, config: WritingConfig, pool: Iterable[Example], test: Iterable[Example]) -> None:
        self.config = config
        self._known: set[str] = set()
        self._near = {threshold: RougeIndex(threshold) for threshold in (config.rouge, config.near_duplicate)}
        self._held_out = HeldOut(test, config.contamination)
        for row in pool:
            self.keep(row)

    def keep(self, row: Example) -> None:
        """Count this row among the kept ones."""
        self._known.add(normalise(row.input))
        for index in self._near.values():
            index.add(row.id, row.input)

    def instruction(self, draft: Draft, parent: Example | None) -> str | None:
        """Why an instruction is not kept ("length", "language", "failed evolution", "contamination", "duplicate"), or
        None."""
        text = draft.instruction
        if not self.config.min_words <= count_words(text) <= self.config.max_words:
            return "length"
        if self.config.languages and foreign(text, self.config.languages):
            return "language"
        rewritten = draft.request.strategy in ("evol", "paraphrase")
        if rewritten and parent is not None and evolution_failed(parent.input, text):
            return "failed evolution"
        if self._held_out.find(text):
            return "contamination"
        own = draft.request.strategy == "self_instruct"
        index = self._near[self.config.rouge if own else self.config.near_duplicate]
        if normalise(text) in self._known or index.find(text):
            return "duplicate"
        return None

    def response(self, draft: Draft, completion: Completion) -> str | None:
        """Why a response is not kept ("no answer", "cut", "refusal", "empty", "echo"), or None."""
        if completion.finish == "error":
            return "no answer"
        if completion.finish == "length":
            return "cut"
        start = completion.text.strip().casefold().replace("’", "'")[:200]
        if any(words in start for words in _REFUSALS):
            return "refusal"
        if failed := response_failed(completion.text, STOP_WORDS):
            return "refusal" if "apology" in failed else "empty"
        if normalise(completion.text) == normalise(draft.instruction):
            return "echo"
        return None


def count_words(text: str) -> int:
    """Words between spaces; in a script without spaces two letters count as one."""
    return -(-len(tokenise(text)) // 2) if spaceless(text) else len(text.split())
