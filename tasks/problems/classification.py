"""Classification: one label out of a fixed set, the label's own words being the answer."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from tasks.core.errors import UserError
from tasks.core.examples import Example
from tasks.core.generators.base import Message
from tasks.problems.base import Draft, Problem, ProblemConfig, Score

MOST_LABELS_NAMED = 20
_SURROUNDING = " \t\r\n\"'“”‘’«»`.,:;!?*_()[]{}<>。、！？"
_LIST_ITEM = re.compile(r"\s*(?:\(?\d{1,3}[.):]|[-*•–])\s+(.*)")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}


def normal_form(text: str) -> str:
    """NFKC, case-folded, white space collapsed, surrounding quotes, brackets and sentence marks removed.

    A text of such marks alone keeps them; `+` and `#` stay everywhere, so that C, C++ and C# remain three
    labels.
    """
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return text.strip(_SURROUNDING) or text


def chosen(answer: str, options: Iterable[str]) -> str | None:
    """The one option that `answer` opens with, or None.

    The longest option counts ("weather forecast" before "weather"). An answer that goes on to name a second
    option is ambiguous, and "not X" does not open with X: both give None.
    """
    spelled = {normal_form(option): option for option in options}
    names = "|".join(re.escape(name) for name in sorted(spelled, key=len, reverse=True))
    found = list(re.finditer(rf"(?<!\w)(?:{names})(?!\w)", normal_form(answer)))
    if not found or found[0].start() > 0 or len({match.group() for match in found}) > 1:
        return None
    return spelled[found[0].group()]


class Classification(Problem):
    """Answers are labels. The teacher writes new texts only; their label is that of the row they come
    from.
    """

    def __init__(self, config: ProblemConfig) -> None:
        super().__init__(config)
        spellings = defaultdict(list)
        for label in config.labels:
            spellings[normal_form(label)].append(label)
        if clash := next((alike for alike in spellings.values() if len(alike) > 1), None):
            raise UserError(
                f"the labels {' and '.join(map(repr, clash))} differ only in case, spaces or punctuation",
                field="data.target",
                mend="write one label one way in the data, or rename one of them",
            )
        self.instruction = "Answer with the label of the text."
        if 0 < len(config.labels) <= MOST_LABELS_NAMED:
            self.instruction = f"Answer with one label: {', '.join(config.labels)}."
        self.choices = config.labels
        # A token is at least one byte, but for what few the tokenizer puts in front.
        self.max_new_tokens = 4 + max((len(label.encode()) for label in config.labels), default=28)

    def score(self, example: Example, completion: str) -> Score:
        """1 when the first line opens with the right label and names no other; case and punctuation are
        free.
        """
        line = (completion.strip().splitlines() or [""])[0]
        if self.config.labels:
            answer = chosen(line, self.config.labels)
        else:
            answer = example.target if normal_form(line) == normal_form(example.target) else None
        return Score(value=float(answer == example.target), answer=answer)

    def fault(self, example: Example) -> str | None:
        """An empty input or label, or a label outside the known set."""
        if not example.target.strip():
            return "the label is empty"
        if self.config.labels and example.target not in self.config.labels:
            return f"the label {example.target!r} is not one of the {len(self.config.labels)} known ones"
        return super().fault(example)

    def show(self, example: Example) -> str:
        """The text as one numbered line; the label stands in the request."""
        return _numbered([example.input])

    def read(self, text: str, parent: Example) -> list[Draft]:
        """One row per numbered or bulleted line; without any, one per line if the answer is a bare list of
        lines.

        Paragraphs, a single unmarked line and lines that end in a colon are talk, not rows.
        """
        lines = text.strip().splitlines()
        items = [match.group(1) for line in lines if (match := _LIST_ITEM.match(line))]
        if not items and len(lines) > 1 and all(line.strip() for line in lines):
            items = lines
        texts = [_unquoted(item) for item in items if not item.rstrip().endswith(":")]
        copied = {normal_form(text) for text in _WORKED[2]}
        return [
            Draft(input=text, target=parent.target)
            for text in texts
            if any(letter.isalnum() for letter in text) and normal_form(text) not in copied
        ]

    def stays(self, example: Example) -> str:
        """The label is that of the row it comes from."""
        return f'It is a text that clearly stays in the class "{example.target}".'

    def cue(self, example: Example) -> str:
        """The label in words: AddToPlaylist is "add to playlist"."""
        spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", example.target)
        return " ".join(spaced.split()).lower()

    def read_one(self, text: str, parent: Example) -> list[Draft]:
        """The answer's first line."""
        line = _unquoted(_LIST_ITEM.sub(r"\1", (text.strip().splitlines() or [""])[0]))
        fits = any(letter.isalnum() for letter in line) and not line.endswith(":")
        return [Draft(input=line, target=parent.target)] if fits else []

    def turns(self, parent: Example, shown: Sequence[Example], system: str) -> list[Message]:
        """Bare texts, without the numbers of a list."""
        messages = super().turns(parent, shown, system)
        texts = iter(_one_line(example.input) for example in [*shown, parent])
        return [
            {"role": "assistant", "content": next(texts)} if message["role"] == "assistant" else message
            for message in messages
        ]

    def request(
        self, parent: Example, shown: Sequence[Example], count: int, avoid: Sequence[str]
    ) -> list[Message]:
        """A finished exchange with texts of this label, then the same request for `parent`.

        A small model continues a pattern better than it follows an instruction: with one worked exchange of
        the very wording of the request, SmolLM2-135M writes usable rows for most SNIPS intents, without it
        for few.
        """
        label, texts, written = parent.target, [example.input for example in shown], list(avoid)
        if len(texts) > 1:
            worked = _exchange(label, texts[0], texts[1:])
        else:
            worked, written = _exchange(*_WORKED), texts + written
        ask = _ask(label, parent.input, count)
        if written:
            worked += _exchange(label, parent.input, written)
            ask += "\nDiffer from all texts above."
        system = (
            "You write example texts for a text classifier: one text per line, numbered, and nothing else."
        )
        return [{"role": "system", "content": system}, *worked, {"role": "user", "content": ask}]


_WORKED = (
    "complaint",
    "My parcel arrived three days late.",
    [
        "The soup at table nine was cold, and nobody apologised.",
        "Why has my refund of 40 euros still not been paid?",
        "I waited an hour on the phone for Ms Okafor!",
    ],
)
"""The exchange shown when no texts of the label's own are: label, text, and the texts written from it."""


def _ask(label: str, text: str, count: int) -> str:
    noun = "text" if count == 1 else "texts"
    return (
        f'Write {count} {noun} of the class "{label}" that resemble this one, with other names, numbers, '
        f'wording and sentence forms, and that clearly stay in the class "{label}": {_one_line(text)}'
    )


def _exchange(label: str, text: str, answers: Sequence[str]) -> list[Message]:
    return [
        {"role": "user", "content": _ask(label, text, len(answers))},
        {"role": "assistant", "content": _numbered(answers)},
    ]


def _numbered(texts: Sequence[str]) -> str:
    return "\n".join(f"{number}. {_one_line(text)}" for number, text in enumerate(texts, 1))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _unquoted(text: str) -> str:
    text = text.strip().strip("*").strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text
