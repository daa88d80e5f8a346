"""The language of an instruction, by py3langid (Lui & Baldwin 2012), whose model comes with it."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from tasks.core.errors import UserError

SURE = 0.5
"""From this probability on another language counts: short texts, code and formulas are rarely so sure of one."""
_QUOTED = re.compile("\"[^\"]*\"|“[^”]*”|«[^»]*»|„[^“”]*[“”]|(?<!\\w)'[^']*'(?!\\w)|```.*?```|`[^`]*`", re.S)


def foreign(text: str, languages: Sequence[str]) -> str | None:
    """The code (ISO 639-1) of the language a text is in when that is none of `languages`, else None.

    What stands in quotes or is code does not count: "Translate 'guten Morgen'" is English. A text of which nothing is
    left, or whose language is not clear, is none of another one.
    """
    rest = _QUOTED.sub(" ", text)
    if not any(letter.isalpha() for letter in rest):
        return None
    language, probability = _identifier().classify(rest)
    return language if language not in languages and probability >= SURE else None


def check_languages(languages: Sequence[str], field: str) -> None:
    """Raise UserError for a code of no language that can be told."""
    if unknown := [code for code in languages if code not in _identifier().labels]:
        raise UserError(
            f"{', '.join(map(repr, unknown))} is no language that can be told",
            field=field,
            mend=f"use two letters each, of {' '.join(sorted(_identifier().labels))}",
        )


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
