"""From a table to facts, every cell and every template checked."""

import re
from dataclasses import dataclass
from typing import Any

from tasks.core.errors import UserError
from tasks.data.faults import refuse
from tasks.data.reading import BadCell, cell_text, read_rows
from tasks.entities.spans import Span
from tasks.facts.config import FactsConfig
from tasks.reversal.words import split_words

FIELD = "facts.table"
_SLOT = re.compile(r"\{(subject|object)\}")
_TAUGHT = ("forward", "both", "none")


@dataclass(frozen=True)
class Statement:
    """A sentence in which both names stand, the one that is asked for at the end."""

    text: str
    names: tuple[Span, Span]
    """Where the names stand, the asked one last."""

    @property
    def question(self) -> str:
        """The text up to the name that is asked for."""
        return self.text[: self.names[1][0]].rstrip()

    @property
    def answer(self) -> str:
        """The name that is asked for."""
        return self.text[slice(*self.names[1])]


@dataclass(frozen=True)
class Fact:
    """A relation between two names, stated in both directions."""

    relation: str
    subject: str
    object: str
    forward: Statement
    backward: Statement
    taught: str
    """`forward`, `both` or `none`; empty leaves it to the configuration."""

    @property
    def names(self) -> tuple[str, str]:
        """Subject and object: rows of a relation that share both state the same fact, in other words."""
        return self.subject, self.object


def read_facts(config: FactsConfig) -> list[Fact]:
    """The facts of a table, in its order, without repetitions.

    Raises UserError for a table that cannot be read, a missing column, empty cells, and templates without both names or
    with words after the last one.
    """
    rows = read_rows(config.table, FIELD, split="train")
    columns = dict.fromkeys(column for _, cells in rows for column in cells)
    for name in ("subject", "object", "relation", "forward", "backward", "taught"):
        column = getattr(config, name)
        if column and column not in columns:
            raise UserError(
                f"{rows[0][0].rpartition(', ')[0]} has no column {column!r}",
                field=f"facts.{name}",
                mend=f"its columns are {', '.join(columns)}; choose one with --facts.{name}=NAME",
            )
    facts, faults = dict[Fact, None](), list[str]()
    for place, cells in rows:
        try:
            facts[_fact(config, cells)] = None
        except BadCell as error:
            faults.append(f"{place}, {error}")
    refuse(faults, field=FIELD, mend="mend or remove these rows")
    return list(facts)


def _fact(config: FactsConfig, cells: dict[str, Any]) -> Fact:
    names = {name: cell_text(cells, getattr(config, name)).strip() for name in ("subject", "object")}
    for name, text in names.items():
        if len(split_words(text)) < 2:
            raise BadCell(f"column {getattr(config, name)!r} has no word: {text!r}")
    taught = cell_text(cells, config.taught).strip() if config.taught else ""
    if taught and taught not in _TAUGHT:
        raise BadCell(f"column {config.taught!r} says {taught!r}, none of {', '.join(_TAUGHT)}")
    return Fact(
        relation=cell_text(cells, config.relation).strip(),
        forward=_statement(config.forward, cell_text(cells, config.forward), names, last="object"),
        backward=_statement(config.backward, cell_text(cells, config.backward), names, last="subject"),
        taught=taught,
        **names,
    )


def _statement(column: str, template: str, names: dict[str, str], *, last: str) -> Statement:
    parts = _SLOT.split(template.strip())
    first = "subject" if last == "object" else "object"
    if len(parts) != 5 or [parts[1], parts[3]] != [first, last] or len(split_words(parts[4])) > 1:
        raise BadCell(
            f"column {column!r} has to hold {{{first}}} once and then {{{last}}} once, "
            f"with no word after it: {template!r}"
        )
    text, spans = parts[0], list[Span]()
    for slot, after in ((parts[1], parts[2]), (parts[3], parts[4])):
        spans.append((len(text), len(text) + len(names[slot])))
        text += names[slot] + after
    return Statement(text, (spans[0], spans[1]))
