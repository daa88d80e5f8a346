"""Markdown of texts that may hold anything: what a user, a file or a model named is shown as it is read."""

import html
import re
from collections.abc import Sequence

_MARKS = re.compile(r"([\\`*_{}\[\]()#+!|~-])")


def escaped(text: str) -> str:
    """Text from outside as it is read, and never as Markdown or HTML; line breaks become spaces."""
    line = " ".join(text.split())
    return _MARKS.sub(r"\\\1", html.escape(line, quote=False)).replace("://", ":&#47;&#47;")


def cut(text: str, most: int) -> str:
    """The text, or its first characters and a mark that there are more."""
    return text if len(text) <= most else text[: most - 1] + "…"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table, every cell of them escaped; "None." without any."""
    if not rows:
        return "None."
    lines = [columns, ["---"] * len(columns), *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
