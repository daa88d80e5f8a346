"""Rows as labelled lines, the form in which a teacher sees and writes problems of more than one field:

Question: How many legs do two cats have?
Answer: 8
"""

import re
from abc import abstractmethod
from collections.abc import Sequence

from tasks.core.examples import Example
from tasks.core.generators.base import Message
from tasks.problems.base import Draft, Problem

_FIELD = re.compile(
    r"[\s>*#]*(?:\d{1,3}[.)]\s*)?\**(question|choices|answer)(?:\s+\d{1,3})?\s*\**\s*:\s*\**(.*)", re.I
)
_RULE = re.compile(r"\s*[-=*_]{3,}\s*")


def fields(text: str) -> list[dict[str, str]]:
    """The rows of a teacher's answer, each a dictionary of field (lower case) to text.

    A row opens with its question. Text before the first question is talk; a row with a field given twice is
    left out, as two rows have run together there. Numbers, bold type and rules between rows are tolerated.
    """
    rows: list[list[tuple[str, list[str]]]] = []
    for line in text.splitlines():
        match = _FIELD.fullmatch(line)
        if match and match.group(1).lower() == "question":
            rows.append([])
        if rows and match:
            rows[-1].append((match.group(1).lower(), [match.group(2).strip()]))
        elif rows:
            rows[-1][-1][1].append("" if _RULE.fullmatch(line) else line.rstrip())
    named = [[(name, "\n".join(lines).strip()) for name, lines in row] for row in rows]
    return [dict(row) for row in named if len(dict(row)) == len(row)]


def first_paragraph(text: str) -> str:
    """What stands before the first blank line: a model's closing remark comes after one."""
    return re.split(r"\n\s*\n", text, maxsplit=1)[0].strip()


class LabelledLines(Problem):
    """A problem whose rows a teacher reads and writes as labelled lines.

    Request as in LLM2LLM (arXiv 2403.15042): a system prompt, one worked exchange, the query. The teacher
    does not see what the student answered.
    """

    @abstractmethod
    def worked(self, parent: Example) -> tuple[Example, list[Example]]:
        """The worked exchange: an example, and rows written from it, in the form of `parent`."""

    @abstractmethod
    def draft(self, row: dict[str, str], parent: Example) -> Draft | None:
        """The row of these fields (non-empty `question` and `answer`), or None when it is not a complete
        one.
        """

    def show(self, example: Example) -> str:
        """`Question:` and `Answer:` lines."""
        return f"Question: {example.input}\nAnswer: {example.target}"

    def read(self, text: str, parent: Example) -> list[Draft]:
        """The complete rows; copies of the worked exchange are left out."""
        example, written = self.worked(parent)
        copied = {row.input for row in (example, *written)}
        complete = [row for row in fields(text) if row["question"] and row.get("answer")]
        drafts = [self.draft(row, parent) for row in complete if row["question"] not in copied]
        return [draft for draft in drafts if draft]

    def request(
        self, parent: Example, shown: Sequence[Example], count: int, avoid: Sequence[str]
    ) -> list[Message]:
        """System prompt, worked exchange, query with `parent`, class-mates and what to differ from."""
        example, written = self.worked(parent)
        query = [_ask(count), self.show(parent)]
        if shown:
            query += ["More examples of the same kind:", *map(self.show, shown)]
        if avoid:
            query.append("\n".join(["Differ from these questions, which are written already:", *avoid]))
        return [
            {
                "role": "system",
                "content": "You write new exercises for a student. Each practises the same skill as the "
                "example, with other names, numbers, wording and story, and carries its correct answer, in "
                "exactly the format of the example. You write the exercises and nothing else.",
            },
            {"role": "user", "content": f"{_ask(len(written))}\n\n{self.show(example)}"},
            {"role": "assistant", "content": "\n\n".join(map(self.show, written))},
            {"role": "user", "content": "\n\n".join(query)},
        ]


def _ask(count: int) -> str:
    return f"Write {count} new exercise{'' if count == 1 else 's'} like this example."
