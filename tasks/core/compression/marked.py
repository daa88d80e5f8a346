"""A prompt with parts that are marked to stay as they are: `Summarise: <keep>order 66</keep> …`."""

import regex

from tasks.core.compression.compressor import Document
from tasks.core.errors import UserError

_TAG = regex.compile(r"</?keep>")


def read_marked(text: str) -> Document:
    """The text without its <keep> tags, and what stood between them as untouched.

    Raises UserError for a tag that is opened twice, closed without being open, or not closed.
    """
    pieces, untouched, begin, at, length = list[str](), list[tuple[int, int]](), -1, 0, 0
    for match in _TAG.finditer(text):
        pieces.append(text[at : match.start()])
        length += len(pieces[-1])
        at = match.end()
        if (match.group() == "<keep>") != (begin < 0):
            what = "opened" if begin >= 0 else "closed"
            where = text.count("\n", 0, match.start()) + 1
            raise UserError(
                f"line {where}: {match.group()} where a part is already {what}",
                mend="write <keep> before every part that must stay, </keep> after it, none within another",
            )
        if begin >= 0:
            untouched.append((begin, length))
            begin = -1
        else:
            begin = length
    if begin >= 0:
        raise UserError("a <keep> is never closed", mend="write </keep> after the part that must stay")
    return Document("".join([*pieces, text[at:]]), tuple(span for span in untouched if span[0] < span[1]))
