"""Multiple choice (CaseHOLD and its like): a question, 2 to 26 choices, the answer a letter."""

import re
from string import ascii_uppercase

from tasks.core.examples import Example, make_example
from tasks.problems.base import Draft, Score
from tasks.problems.classification import chosen, normal_form
from tasks.problems.labelled_lines import LabelledLines, first_paragraph

_STATED = re.compile(r"(?:answer|choice|option)\s*(?:is|:|=)", re.I)
_CAPITAL = r"(?:(?i:choice|option)\s+)?[\s(\[\"'*]*([A-Z])(?![\w'’])"
_ANY_CASE = r"(?:(?i:choice|option)\s+)?[\s(\[\"'*]*([A-Za-z])(?=[)\].:,*\"']|\s*$)"
_SECOND = re.compile(r"[\s)\].*\"']*(?:,|/|&|\bor\b|\band\b)[\s(\[\"'*]*[A-Z](?!\w)")
_CHOICE_LINE = re.compile(r"[\s*\-(]*([A-Z])[.):]\**\s*(.+)")


def _letter(text: str) -> tuple[str, str] | None:
    """The letter that `text` opens with, in upper case, and what follows it.

    A lower-case letter needs a bracket, a full stop or the end of the text behind it, and a capital "A" or
    "I" before a word in lower case is that word ("A dog barks"), no letter.
    """
    if match := re.match(_ANY_CASE, text) or re.match(_CAPITAL, text):
        rest = text[match.end() :]
        if (
            match[1] not in "AI"
            or not re.match(r"\s+[a-z]", rest)
            or re.match(r"\s+(?:is|because|since)\b", rest)
        ):
            return match[1].upper(), rest
    return None


def read_choice(text: str, choices: list[str]) -> int | None:
    """The index of the one choice that `text` names, or None.

    Read are a letter or a choice's own text, at the opening or after each "answer is". Two different ones, "B
    or C", a letter that does not exist, and a letter followed by another choice's text are no answer.
    """
    parts = [text[match.end() :] for match in _STATED.finditer(text)] or [text]
    found = {_opening(part.strip(), choices) for part in parts}
    return found.pop() if len(found) == 1 else None


def _opening(text: str, choices: list[str]) -> int | None:
    line = text.partition("\n")[0]
    by_text = chosen(line, choices)
    if by_text is not None:
        return choices.index(by_text)
    read = _letter(line)
    if read is None or _SECOND.match(read[1]):
        return None
    index = ascii_uppercase.index(read[0])
    by_text = chosen(read[1], choices)
    agrees = by_text is None or choices.index(by_text) == index
    return index if index < len(choices) and agrees else None


class MultipleChoice(LabelledLines):
    """The student sees lettered choices and answers with a letter; targets are letters or choice texts."""

    instruction = "Answer with the letter of the right choice."
    max_new_tokens = 16

    def question(self, example: Example) -> str:
        """The input, then a line per choice."""
        return f"{example.input}\n{_lettered(example.choices)}"

    def target(self, example: Example) -> str:
        """The letter."""
        return ascii_uppercase[self.right(example)]

    def right(self, example: Example) -> int:
        """Index of the right choice. Raises ValueError for an example with a fault."""
        if fault := self.fault(example):
            raise ValueError(fault)
        return _indices(example)[0]

    def score(self, example: Example, completion: str) -> Score:
        """1 for the right choice; see `read_choice` for what counts as one."""
        index = read_choice(completion, example.choices)
        answer = None if index is None else ascii_uppercase[index]
        return Score(value=float(index == self.right(example)), answer=answer)

    def fault(self, example: Example) -> str | None:
        """Too few, too many, empty or equal choices; an answer that is none of them, or two."""
        if not 2 <= len(example.choices) <= len(ascii_uppercase):
            return f"it has {len(example.choices)} choices; 2 to 26 are needed"
        if not all(choice.strip() for choice in example.choices):
            return "a choice is empty"
        if len({normal_form(choice) for choice in example.choices}) < len(example.choices):
            return "two choices are the same"
        indices = _indices(example)
        if not indices:
            return f"the answer {example.target!r} is neither a choice nor the letter of one"
        if len(indices) > 1:
            return f"the answer {example.target!r} is the text of one choice and the letter of another"
        return super().fault(example)

    def show(self, example: Example) -> str:
        """`Question:`, `Choices:` with a lettered line each, and `Answer:` with the letter."""
        choices = _lettered(example.choices)
        return f"Question: {example.input}\nChoices:\n{choices}\nAnswer: {self.target(example)}"

    def draft(self, row: dict[str, str], parent: Example) -> Draft | None:
        """A row with as many choices as the parent's, lettered in order; its answer is a letter if the
        parent's is.
        """
        lines = [_CHOICE_LINE.fullmatch(line) for line in row.get("choices", "").splitlines() if line.strip()]
        read = [match.groups() for match in lines if match]
        letters, choices = [letter for letter, _ in read], [text.strip() for _, text in read]
        answer = read_choice(first_paragraph(row["answer"]), choices) if choices else None
        if (
            len(read) < len(lines)
            or letters != list(ascii_uppercase[: len(parent.choices)])
            or answer is None
        ):
            return None
        by_text = parent.target in parent.choices
        return Draft(
            input=row["question"],
            target=choices[answer] if by_text else ascii_uppercase[answer],
            choices=choices,
        )

    def worked(self, parent: Example) -> tuple[Example, list[Example]]:
        """General knowledge with as many choices as the parent has, up to the eight at hand."""
        count = min(len(parent.choices), 8)
        return (
            make_example("Which of these is the capital of France?", "A", _CAPITALS[:count]),
            [
                make_example("In which city does the government of Italy sit?", "B", _CAPITALS[:count]),
                make_example("Which planet is nearest to the sun?", "A", _PLANETS[:count]),
            ],
        )


_CAPITALS = ["Paris", "Rome", "Oslo", "Vienna", "Lisbon", "Athens", "Cairo", "Lima"]
_PLANETS = ["Mercury", "Neptune", "Mars", "Venus", "Saturn", "Jupiter", "Uranus", "Earth"]


def _lettered(choices: list[str]) -> str:
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))


def _indices(example: Example) -> list[int]:
    """Every choice the target can mean: the one it spells, and the one whose letter it is."""
    target = normal_form(example.target)
    spelled = [index for index, choice in enumerate(example.choices) if normal_form(choice) == target]
    letters = ascii_uppercase[: len(example.choices)].lower()
    lettered = [letters.index(target)] if len(target) == 1 and target in letters else []
    return sorted({*spelled, *lettered})
