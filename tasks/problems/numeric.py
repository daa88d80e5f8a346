"""Numeric answers (GSM8K and its like): a worked solution that ends in a number, compared as exact
rationals.
"""

import re
import unicodedata
from fractions import Fraction

from tasks.core.examples import Example, make_example
from tasks.problems.base import Draft, Score
from tasks.problems.labelled_lines import LabelledLines, first_paragraph

MARKER = "####"
MOST_DIGITS = 100

_NUMBER = re.compile(
    r"""
    (?<![A-Za-z0-9_]) (?<!\d[.])            # not inside a word (H2O) or a version (1.2.3)
    (?P<minus> (?<![)\]}%$€£¥₹]) -[$€£¥₹]? | (?<=[$€£¥₹])- )?   # a sign, not the minus of 12-5 or (3)-5
    (?: (?P<whole> \d+ ) [ ]+ (?= \d+ / \d ) )?     # the 1 of 1 1/2
    (?P<body> (?: \d{1,3} (?: ,\d{3} )+ (?!\d) | \d+ ) (?: \.\d+ )? | \.\d+ )
    (?: [ ]?/[ ]? (?P<over> 0*[1-9]\d* ) (?! \d | \.\d ) )?
    """,
    re.VERBOSE,
)
_STATED = re.compile(r"answer\s*(?:is|:|=)", re.I)
_VULGAR_FRACTION = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")
_SIGNS = str.maketrans({"−": "-", "–": "-", "－": "-", "⁄": "/"})


def numbers(text: str) -> list[Fraction]:
    """Every number in `text`, exactly.

    Signs (also the typographic minus), thousands commas, decimals, fractions and mixed numbers (3/4, 1 1/2,
    1¾) are read; currency signs and units, the percent sign among them, are not: 50 % is 50. A comma is never
    a decimal point. A subtraction (12-5) holds no negative number. Numbers of more than MOST_DIGITS
    characters are skipped.
    """
    text = _VULGAR_FRACTION.sub(lambda match: " " + unicodedata.normalize("NFKC", match.group()), text)
    return [
        _value(match)
        for match in _NUMBER.finditer(text.translate(_SIGNS))
        if len(match.group()) <= MOST_DIGITS
    ]


def _value(match: re.Match[str]) -> Fraction:
    value = Fraction(match["body"].replace(",", "")) / int(match["over"] or 1) + int(match["whole"] or 0)
    return -value if match["minus"] else value


def read_answer(text: str) -> Fraction | None:
    """The number a solution ends in, or None.

    The first one on the line after the first `####`; without that mark, the one after the last "answer is"
    (of an equation its right side); without either, the last number of the text. LLM2LLM's own comparison
    drops the minus sign; this one does not.
    """
    if MARKER in text:
        return next(iter(numbers(text.split(MARKER, 1)[1].strip().partition("\n")[0])), None)
    if stated := list(_STATED.finditer(text)):
        line = text[stated[-1].end() :].strip().partition("\n")[0]
        if found := numbers(line.rpartition("=")[2]):
            return found[0]
    return next(reversed(numbers(text)), None)


class Numeric(LabelledLines):
    """Targets are worked answers ending `#### 42`, or bare numbers."""

    instruction = "Solve the problem step by step. End with #### and the number."
    max_new_tokens = 400

    def score(self, example: Example, completion: str) -> Score:
        """1 when the completion's number equals the target's as a rational: 0.5, 1/2 and .50 are one
        answer.
        """
        answer = read_answer(completion)
        right = answer is not None and answer == read_answer(example.target)
        return Score(value=float(right), answer=None if answer is None else str(answer))

    def fault(self, example: Example) -> str | None:
        """An empty input, or an answer without a number."""
        return "the answer holds no number" if read_answer(example.target) is None else super().fault(example)

    def draft(self, row: dict[str, str], parent: Example) -> Draft | None:
        """A row whose answer ends as the parent's does; a worked answer without its `####` line was cut."""
        answer = row["answer"]
        if MARKER in parent.target:
            steps, marker, rest = answer.partition(MARKER)
            answer = f"{steps}{marker} {rest.strip().partition(chr(10))[0]}" if marker else ""
        else:
            answer = first_paragraph(answer)
        return None if read_answer(answer) is None else Draft(input=row["question"], target=answer)

    def worked(self, parent: Example) -> tuple[Example, list[Example]]:
        """Word problems of two steps, with their steps if the parent shows its own."""
        example, *written = [
            make_example(question, f"{steps}\n{MARKER} {number}" if MARKER in parent.target else number)
            for question, steps, number in _WORKED
        ]
        return example, written


_WORKED = [
    (
        "Rosa picks 4 baskets of 12 plums and gives 10 plums away. How many plums does she keep?",
        "She picks 4 * 12 = 48 plums.\nShe keeps 48 - 10 = 38 plums.",
        "38",
    ),
    (
        "A printer makes 15 pages a minute. It runs for 6 minutes, and then 20 pages are thrown out. How "
        "many pages are left?",
        "It prints 15 * 6 = 90 pages.\nThere are 90 - 20 = 70 pages left.",
        "70",
    ),
    (
        "Tomas owes a friend $50 and pays back $8 a week for 5 weeks. How many dollars does he still owe?",
        "He pays back 8 * 5 = 40 dollars.\nHe still owes 50 - 40 = 10 dollars.",
        "10",
    ),
]
