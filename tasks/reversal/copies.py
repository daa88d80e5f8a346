"""The reversed copy of a row."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from random import Random
from typing import Any

from tasks.core.errors import UserError
from tasks.core.examples import Example
from tasks.entities.find import EntityFinder
from tasks.entities.spans import Span, occurrences, resolve
from tasks.problems.base import Problem
from tasks.reversal.config import ReversalConfig
from tasks.reversal.reversals import reverse_entities, reverse_segments, reverse_words

AT_ONCE = 1000  # rows that a finder gets together

Record = dict[str, Any]
"""A row as its file has it: the fields of tasks.core.examples.Example without those that have their default."""


@dataclass
class Copies:
    """Makes reversed copies, and counts what was noticed on the way."""

    config: ReversalConfig
    problem: Problem | None = None
    """Needed for rows that have a question."""
    finder: EntityFinder | None = None
    """What finds entities; None where they are given with the rows."""
    made: int = 0
    unchanged: int = 0
    """Rows without a copy, since reversed they are the same: of one word, of one entity, without a word."""
    with_entities: int = 0
    without_entities: int = 0
    """Texts in which there was no entity, reversed by words."""
    _draw: Random = field(default_factory=Random)

    def of(self, records: Iterable[Record], draw: Random) -> Iterator[Record]:
        """The copies of the records in their order, without those that say nothing new; `draw` decides segments.

        A stream: never more than AT_ONCE rows are held. Raises UserError for spans that a row cannot have.
        """
        self._draw = draw
        waiting = iter(records)
        while chunk := list(islice(waiting, AT_ONCE)):
            parts = [self._parts(record) for record in chunk]
            texts = [text for row in parts for text in row]
            found = iter(self._entities(texts)) if self.finder else None
            for record, row in zip(chunk, parts, strict=True):
                given = record.get("facts", {}).get("entities", ())
                turned = [self._reverse(text, next(found) if found else given, record["id"]) for text in row]
                copy = self._copy(record, row, turned)
                if copy is not None:
                    self.made += 1
                    yield copy

    def _parts(self, record: Record) -> list[str]:
        """The texts of a row that are reversed: a plain text, an answer, or question and answer."""
        if not record["input"]:
            return [record.get("completion") or record["target"]]
        example, problem = Example.model_validate(record), self.problem
        assert problem is not None
        answer = problem.target(example) if example.completion is None else example.completion
        return [problem.question(example), answer] if self.config.part == "turn" else [answer]

    def _entities(self, texts: list[str]) -> list[list[Span]]:
        assert self.finder is not None
        return self.finder.find(texts)

    def _reverse(self, text: str, entities: Iterable[Any], row: str) -> str:
        by = self.config.by
        if by == "word":
            return reverse_words(text)
        if by == "segment":
            return reverse_segments(text, self.config.longest_segment, self._draw, self.config.marker)
        if by == "entity":
            spans = resolve(text, _spans(text, entities, row))
            self.with_entities += bool(spans)
            self.without_entities += not spans
            return reverse_entities(text, spans)[0] if spans else reverse_words(text)
        return text  # tokens are reversed when the row is tokenised

    def _copy(self, record: Record, parts: list[str], turned: list[str]) -> Record | None:
        by_token, plain = self.config.by == "token", not record["input"]
        question, answer = record["input"], turned[-1]
        if len(parts) == 2:
            # The reversed answer asks for the reversed question; by tokens the whole turn is one text.
            question, answer = ("", "\n".join(parts)) if by_token else (turned[1], turned[0])
            plain = by_token
        marked = self.config.marked
        if parts == turned and not by_token and len(parts) == 1 and (plain or not marked):
            self.unchanged += 1
            return None
        if marked and plain:  # the last tokens of a row that is reversed by them are its first
            marker = self.config.marker
            answer = f"{answer} {marker}" if by_token else f"{marker} {answer}"
        elif marked:
            question = f"{self.config.marker} {question}"
        trained = {"target": answer} if plain else {"target": record["target"], "completion": answer}
        copy = {"input": question, "origin": "synthetic", "parent": record["id"]} | trained
        copy["root"] = record.get("root") or record["id"]
        copy["id"] = sha256(f"{record['id']} {self.config.by} {question} {answer}".encode()).hexdigest()[:16]
        if len(parts) == 1 and record.get("choices"):
            copy["choices"] = record["choices"]
        return copy | ({"tokens_reversed": True} if by_token else {})


def _spans(text: str, entities: Iterable[Any], row: str) -> Iterator[Span]:
    """Places in a text from what is given with a row: names, or pairs of begin and end."""
    for entity in entities:
        if isinstance(entity, str):
            yield from occurrences(text, entity)
            continue
        try:
            begin, end = entity
            fits = 0 <= begin <= end <= len(text)
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise UserError(
                f"row {row} has an entity {entity!r} that is no place in its text of {len(text)} characters",
                field="reversal.entities",
                mend="give names, or pairs of begin and end in characters",
            )
        yield begin, end
