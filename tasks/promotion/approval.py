"""A person's word on a promotion: the question that stands with a version until it is answered, and the answer.

Both are tags of the version, so that whoever comes by can answer and whoever comes next can go on: a form in Prefect's
page, the flow `approve`, or, when nobody did in time, the next run.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.evaluate import Prediction
from tasks.promotion.markdown import cut, table
from tasks.promotion.registered_version import RegisteredVersion
from tasks.report.compare import changes, pair

ASKED, ANSWERED = "approval.asked", "approval.answer"
_LONGEST = 300


class ApprovalConfig(Config):
    """Whether a person has the last word on a better candidate."""

    ask: bool = False
    """A candidate that the test finds better becomes champion only when a person approves it. Until then the run is
    suspended: it holds no process and no GPU."""
    timeout_hours: float = Field(72.0, gt=0.0, le=8760.0)
    """Without an answer for so long the candidate is not promoted."""
    rows: int = Field(5, ge=0, le=50)
    """Test rows shown whose answer became right, and as many whose answer became wrong."""


class Question(BaseModel):
    """What is asked: may this version take the place of the champion `parent`?"""

    parent: str
    until: datetime
    hours: float
    run_id: str
    file: str
    """What is shown with it: an artifact of a run in MLflow."""


class Answer(BaseModel):
    """What was answered to a question, by whom and why."""

    approved: bool
    reason: str = ""
    by: str = ""
    parent: str = ""
    """The champion that the question was about: an answer holds for no other comparison."""

    @property
    def words(self) -> str:
        """The answer in words."""
        verb = "approved" if self.approved else "not approved"
        return verb + (f" by {self.by}" if self.by else "") + (f": {self.reason}" if self.reason else "")


def make_question(parent: str, hours: float, run_id: str, digest: str) -> Question:
    """The question about the model of a digest, open for so many hours from now; `run_id` keeps what is shown."""
    until = datetime.now(UTC) + timedelta(hours=hours)
    file = f"approval-{digest[:12]}-{parent or 'first'}.md"
    return Question(parent=parent, until=until, hours=hours, run_id=run_id, file=file)


def question_of(version: RegisteredVersion) -> Question | None:
    """The question that a promoted version waits with, answered or not; None when it waits for nobody."""
    asked = version.tags.get(ASKED)
    if asked is None or not version.promoted or version.settled:
        return None
    return Question.model_validate_json(asked)


def answer_of(version: RegisteredVersion, question: Question) -> Answer | None:
    """The answer that stands with a version; that to an earlier question does not count."""
    given = version.tags.get(ANSWERED)
    answer = Answer.model_validate_json(given) if given else None
    return answer if answer and answer.parent == question.parent else None


def overdue(question: Question) -> Answer | None:
    """The answer that silence is, once the time is over."""
    if datetime.now(UTC) < question.until:
        return None
    reason = f"nobody answered until {question.until:%Y-%m-%d %H:%M} UTC ({question.hours:g} hours)"
    return Answer(approved=False, reason=reason, parent=question.parent)


def changed_rows(
    before: Sequence[Prediction], after: Sequence[Prediction], *, most: int, seed: int, against: str
) -> str:
    """Some of the rows whose answer became right or wrong, as Markdown in which nothing of them is active."""
    pairs, parts = pair(before, after, "data.test"), list[str]()
    for words, fixed in (("Became right", True), ("Became wrong", False)):
        found = changes(pairs, fixed=fixed, most=most, seed=seed)
        rows = [
            [cut(text, _LONGEST) for text in (old.input, old.target, old.completion, new.completion)]
            for old, new in found.shown
        ]
        parts.append(f"### {words}: {found.count} rows" + (f", {len(rows)} of them" if rows else ""))
        if rows:
            parts.append(table(["asked", "right", against, "candidate"], rows))
    return "\n\n".join(parts)
