"""Cloze: a text that breaks off before a name, and the name; the model goes on with the text, without any chat."""

import unicodedata

from tasks.core.examples import Example
from tasks.core.generators.base import Message
from tasks.problems.base import Score
from tasks.problems.exact_match import ExactMatch
from tasks.reversal.words import split_words


class Cloze(ExactMatch):
    """Right is a completion that begins with the target, or with another name in `facts["accepted"]`, and then ends or
    goes on with punctuation, a new line, or a script that sets no spaces: "Guinea Bissau" is not Guinea."""

    instruction = ""
    max_new_tokens = 24

    def prompt(self, example: Example) -> list[Message]:
        """The text itself, as words of the assistant that it goes on with (see `tasks.core.models.render`)."""
        return [{"role": "assistant", "content": example.input}]

    def score(self, example: Example, completion: str) -> Score:
        """1 when one of the right names opens the completion; the answer is its first line."""
        parts = split_words(completion)
        accepted = [example.target, *example.facts.get("accepted", ())]
        right = any(_opens(parts, split_words(name)) for name in accepted)
        return Score(value=float(right), answer=completion.strip().partition("\n")[0] or None)


def _opens(parts: list[str], name: list[str]) -> bool:
    """Whether the words of a name open a text, both as parts of `split_words`, and no word of it follows a space."""
    words = name[1::2]
    if not words or _normal(parts[1::2][: len(words)]) != _normal(words):
        return False
    after, last = parts[2 * len(words)], len(parts) == 2 * len(words) + 1
    return last or not after.isspace() or "\n" in after


def _normal(words: list[str]) -> list[str]:
    return [unicodedata.normalize("NFC", word).casefold() for word in words]
