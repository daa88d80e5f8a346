"""The question about a candidate: what is shown stays text, an answer holds for one comparison, silence ends it."""

from datetime import UTC, datetime, timedelta

import pytest
from markdown_it import MarkdownIt

from tasks.core.errors import UserError
from tasks.evaluate import Prediction
from tasks.promotion.answering import give_answer, waiting_version
from tasks.promotion.approval import (
    ASKED,
    Answer,
    Question,
    answer_of,
    changed_rows,
    make_question,
    overdue,
    question_of,
)
from tasks.promotion.concluding import decision_of, decision_tags
from tasks.promotion.decision import Decision
from tasks.promotion.registry import CHAMPION, ModelRegistry
from tests.mlflow_file import new_tracking
from tests.unit.report_html import parse
from tests.unit.test_promotion_model_card import HOSTILE
from tests.unit.test_promotion_registry import weights


def answered(number: int, value: float, text: str) -> Prediction:
    return Prediction(
        id=str(number),
        input=text,
        target=text,
        prompt="",
        completion=text,
        answer=None,
        value=value,
        finish="stop",
    )


def test_rows_that_changed_are_counted_chosen_and_shown_as_text():
    before = [answered(number, value, HOSTILE) for number, value in enumerate([0, 0, 0, 1, 1])]
    after = [answered(number, value, HOSTILE) for number, value in enumerate([1, 1, 0, 1, 0])]
    text = changed_rows(before, after, most=1, seed=0, against="champion")
    assert "### Became right: 2 rows, 1 of them" in text
    assert "### Became wrong: 1 rows, 1 of them" in text
    parsed = parse(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
    assert {tag for tag, _ in parsed.elements} == {"h3", "table", "thead", "tbody", "tr", "th", "td"}
    assert [values for _, values in parsed.elements if values] == []
    cells = [row for row in parsed.rows if row[0] != "asked"]
    assert cells == [[" ".join(HOSTILE.split())] * 4] * 2
    assert changed_rows(before, after, most=0, seed=0, against="champion").count("|") == 0


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPWRIGHT_HOME", str(folder))
        yield new_tracking(folder)


@pytest.fixture
def registry(tracking, request):
    made = ModelRegistry(tracking, request.node.name[:200])
    made.create()
    return made


BETTER = Decision(
    promoted=True, reason="better", opponent="champion", accuracy=0.9, level=0.05, minimum_gain=0.0
)


def candidate(registry, tracking, work: str, *, parent: str = "", hours: float = 1.0):
    """A version that was found better than `parent` and waits for an answer."""
    run = tracking.start("retrain")
    asked = make_question(parent, hours, run, work).model_dump_json()
    return registry.register(
        weights(work),
        work=work,
        promoted=True,
        parent=parent,
        run_id=run,
        source="model",
        tags=decision_tags(BETTER) | {ASKED: asked},
    )


def test_an_answer_is_one_word_for_one_comparison(registry, tracking):
    first = candidate(registry, tracking, "one")
    version, question = waiting_version(registry, "")
    assert (version.number, question.parent) == (first.number, "")
    assert registry.at(CHAMPION) is None
    yes = Answer(approved=True, reason="fine", by="Ann")
    settled = give_answer(registry, version, question, yes)
    assert (settled.promoted, decision_of(settled).words) == (True, "better; approved by Ann: fine")
    champion = registry.at(CHAMPION)
    assert champion is not None
    assert champion.number == first.number
    with pytest.raises(UserError, match="no version of"):
        waiting_version(registry, "")

    # Two candidates were compared with that champion; when one is promoted, the other's comparison is void.
    for work in ("two", "three"):
        candidate(registry, tracking, work, parent=first.number)
    with pytest.raises(UserError, match="several versions wait: 2, 3"):
        waiting_version(registry, "")
    with pytest.raises(UserError, match="version 7 of"):
        waiting_version(registry, "7")
    version, question = waiting_version(registry, "2")
    give_answer(registry, version, question, Answer(approved=True, parent=question.parent))
    version, question = waiting_version(registry, "3")
    with pytest.raises(UserError, match="the champion is no longer the one"):
        give_answer(registry, version, question, Answer(approved=True, parent=question.parent))
    champion = registry.at(CHAMPION)
    assert champion is not None
    assert champion.number == "2"
    asked_again = question.model_copy(update={"parent": "2"})
    (third,) = [one for one in registry.versions() if one.number == "3"]
    assert answer_of(third, asked_again) is None  # the answer was about another champion


def test_the_first_answer_counts_and_silence_is_one(registry, tracking):
    candidate(registry, tracking, "one")
    version, question = waiting_version(registry, "")
    refused = give_answer(registry, version, question, Answer(approved=False, reason="too terse"))
    assert question_of(refused) is None
    again = give_answer(registry, version, question, Answer(approved=True))  # by somebody who saw it wait
    assert (again.promoted, decision_of(again).words) == (False, "better; not approved: too terse")
    assert (again.tags["approval"], again.tags["approval.reason"]) == ("rejected", "too terse")

    candidate(registry, tracking, "late", hours=-1.0)
    version, question = waiting_version(registry, "")
    late = give_answer(registry, version, question, Answer(approved=True, by="Ann"))
    assert (late.promoted, "nobody answered until" in decision_of(late).words) == (False, True)
    assert registry.at(CHAMPION) is None


def test_a_question_is_overdue_when_its_time_is_over_and_not_before():
    now = datetime.now(UTC)
    open_until = Question(parent="1", until=now + timedelta(hours=1), hours=2, run_id="", file="")
    assert overdue(open_until) is None
    over = overdue(open_until.model_copy(update={"until": now - timedelta(seconds=1)}))
    assert over is not None
    assert (over.approved, over.parent) == (False, "1")
