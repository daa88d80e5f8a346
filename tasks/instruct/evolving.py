"""Evol-Instruct (WizardLM, arXiv 2304.12244): an instruction made harder, or another of its kind, and which evolutions
have failed. The wording is ours."""

import re

from tasks.core.examples import Example
from tasks.filter.duplicates import normalise
from tasks.instruct.request import Request

IN_DEPTH = {
    "constrain": "Add one more requirement or limit that the answer has to meet.",
    "deepen": "Where it asks about something, ask for more depth and breadth about it.",
    "concretise": "Replace what is general in it by something specific.",
    "reason": "Change it so that several steps of reasoning are needed where one was enough.",
}
"""In-depth evolving (section 3.2): the four operations that rewrite an instruction into a harder one."""
BREADTH = "breadth"
_DEPTH = """Rewrite this instruction into a harder one that people can still understand and answer.
{operation}
Add no more than twenty words, and answer with the rewritten instruction alone.

Instruction: {instruction}"""
_BREADTH = """Write a new instruction in the same field as this one, but about something rarer. It has about the \
same length and difficulty, and people can understand and answer it. Answer with the new instruction alone.

Instruction: {instruction}"""
_PARAPHRASE = """Say this instruction in other words. It asks for exactly the same, nothing more and nothing less. \
Answer with the rewritten instruction alone.

Instruction: {instruction}"""
_LABEL = re.compile(
    r"^\s*(?:\**#*\s*(?:the\s+)?(?:re-?written|new|created|evolved|paraphrased)?\s*(?:instruction|prompt)\s*#*\**\s*:\**)\s*",
    re.I,
)
_LEAKS = re.compile(r"\b(?:given|rewritten|new|created|original) (?:prompt|instruction)\b|#\w+ prompt#", re.I)
_WORD = re.compile(r"\w+")


def evolve(row: Example, operation: str) -> Request:
    """The request that evolves a row's instruction by one of IN_DEPTH or by BREADTH."""
    if operation == BREADTH:
        text = _BREADTH.format(instruction=row.input)
    else:
        text = _DEPTH.format(operation=IN_DEPTH[operation], instruction=row.input)
    return Request(
        strategy="evol",
        operation=f"evol/{operation}",
        parents=[row.id],
        prompt=[{"role": "user", "content": text}],
    )


def paraphrase(row: Example) -> Request:
    """The request for the same instruction in other words: variety of wording, no new task."""
    return Request(
        strategy="paraphrase",
        operation="paraphrase",
        parents=[row.id],
        prompt=[{"role": "user", "content": _PARAPHRASE.format(instruction=row.input)}],
    )


def read_instruction(text: str) -> str:
    """The instruction in an answer that should hold nothing else: without a heading and quotes around it."""
    text = _LABEL.sub("", text.strip()).strip()
    quoted = len(text) > 1 and text[0] + text[-1] in ('""', "“”", "''")
    return text[1:-1].strip() if quoted else text


def evolution_failed(before: str, after: str) -> str | None:
    """Why an evolution is no new instruction, or None: it says the same, or words of our own request have got into it
    (section 3.2, rules 1 and 4; the paper lets a model judge the first)."""
    if normalise(before) == normalise(after):
        return "it says the same as the instruction before"
    if leak := _LEAKS.search(after):
        return f"it has words of the request: {leak.group()!r}"
    return None


def response_failed(response: str, stop_words: frozenset[str]) -> str | None:
    """Why a response shows that the instruction cannot be answered, or None: an apology of fewer than 80 words, or
    nothing but stop words and punctuation (section 3.2, rules 2 and 3)."""
    words = [word.casefold() for word in _WORD.findall(response)]
    if all(word in stop_words for word in words):
        return "the response says nothing"
    if "sorry" in words and len(words) < 80:
        return "the response is an apology"
    return None


_COMMON = """a about an and are as at be but by for from had has have he her his i if in is it its me my no not of on or
our she so that the their them there they this to us was we were what which who will with you your"""
STOP_WORDS = frozenset(_COMMON.split())
