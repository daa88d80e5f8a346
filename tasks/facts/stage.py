"""Stage: what is taught of a table of facts, and what is asked."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random

from pydantic import BaseModel

from tasks.core.errors import UserError
from tasks.core.examples import Example, make_example, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage
from tasks.facts.config import FactsConfig
from tasks.facts.table import FIELD, Fact, Statement, read_facts
from tasks.problems.base import ProblemConfig
from tasks.reversal.words import count_words

DIRECTIONS = ("forward", "backward")
PROBLEM = ProblemConfig(name="cloze")


class FactsInputs(BaseModel):
    """Digest of what the table holds."""

    content: str


class FactsResult(BaseModel):
    """What is taught, and the questions of either direction about the same facts."""

    taught: DatasetRef
    """Plain texts with the places of their names."""
    forward: DatasetRef
    backward: DatasetRef
    one_way: int
    """Facts taught in one direction: those that are asked. One in several rows counts once, here and below."""
    both_ways: int

    @property
    def asked(self) -> dict[str, DatasetRef]:
        """The questions by direction."""
        return {"forward": self.forward, "backward": self.backward}


def inputs(config: FactsConfig) -> FactsInputs:
    """What the stage's cache key depends on, wherever the table lies."""
    facts = [
        [one.relation, one.forward.text, one.backward.text, one.taught, one.subject, one.object]
        for one in read_facts(config)
    ]
    return FactsInputs(content=hashlib.sha256(json.dumps(facts).encode()).hexdigest())


def check(config: FactsConfig) -> None:
    """Raise UserError for a table that cannot be taught and asked."""
    _decided(config, read_facts(config))


def run(config: FactsConfig, inputs: FactsInputs, out: Path, report: Report) -> FactsResult:
    """Write taught.jsonl, forward.jsonl and backward.jsonl. Raises UserError when no fact is left to ask."""
    facts = read_facts(config)
    one_way, both_ways, asked = _decided(config, facts)
    taught = [*one_way, *both_ways]
    texts = [_text(fact, fact.forward) for fact in taught] + [
        _text(fact, fact.backward) for fact in both_ways
    ]
    # Rows that state a fact in other words may share a statement, which is not to be taught more often for it.
    texts = list({text.target: text for text in texts}.values())
    questions = {
        name: write_rows(out / f"{name}.jsonl", _questions(asked, facts, name)) for name in DIRECTIONS
    }
    return FactsResult(
        taught=write_rows(out / "taught.jsonl", texts),
        one_way=len({fact.names for fact in one_way}),
        both_ways=len({fact.names for fact in both_ways}),
        **questions,
    )


def _decided(config: FactsConfig, facts: Sequence[Fact]) -> tuple[list[Fact], list[Fact], list[Fact]]:
    """Rows taught in one direction, in both, and the asked ones: all that are not taught in both, unless limited. The
    rows of one relation with the same names state one fact, and are all of one kind."""
    by_relation: dict[str, dict[tuple[str, str], list[Fact]]] = defaultdict(lambda: defaultdict(list))
    for fact in facts:
        by_relation[fact.relation][fact.names].append(fact)
    both, asked = set[Fact](), set[Fact]()
    for relation, stated in by_relation.items():
        members = list(stated.values())
        draw = Random(f"{config.seed} {relation}")
        shuffled = draw.sample(members, len(members))
        taught = shuffled[: round(config.both_ways * len(members))]
        if config.taught:
            taught = [rows for rows in members if any(fact.taught == "both" for fact in rows)]
        both |= {fact for rows in taught for fact in rows}
        left = [rows for rows in shuffled if rows not in taught]
        asked |= {fact for rows in left[: config.asked or len(left)] for fact in rows}
    if not asked:
        raise UserError(
            "all facts are taught in both directions, and none is left to ask",
            field=FIELD,
            mend="lower facts.both_ways, or give more rows",
        )
    one_way = [fact for fact in facts if fact not in both and fact.taught != "none"]
    return one_way, [fact for fact in facts if fact in both], [fact for fact in facts if fact in asked]


def _text(fact: Fact, statement: Statement) -> Example:
    names = [list(span) for span in statement.names]
    return make_example("", statement.text, facts={"entities": names, "relation": fact.relation})


def _questions(asked: Sequence[Fact], known: Sequence[Fact], direction: str) -> list[Example]:
    """A question per fact; where facts share one ("the euro is the currency of") it is asked once, and every answer
    that the table has is right."""
    answers: dict[str, list[str]] = defaultdict(list)
    for fact in known:
        statement: Statement = getattr(fact, direction)
        answers[statement.question].append(statement.answer)
    questions = dict[str, Example]()
    for fact in asked:
        statement = getattr(fact, direction)
        facts = {
            "accepted": sorted(set(answers[statement.question])),
            "relation": fact.relation,
            "words": count_words(statement.answer),
        }
        questions.setdefault(
            statement.question, make_example(statement.question, statement.answer, facts=facts)
        )
    return list(questions.values())


STAGE = Stage("facts", run, FactsConfig, FactsInputs, FactsResult)
