"""What follows from a decision about a registered version: the answer recorded, the data version, description and card.

Made of the version's tags alone, as all that follows is: any run can finish what a killed or suspended one began.
"""

import json
import tempfile
from pathlib import Path
from typing import Literal

from tasks.core.artifacts import table_artifact
from tasks.core.flow_run import FlowRun
from tasks.core.references import DatasetRef
from tasks.core.store import fetch
from tasks.core.tracking import Tracking
from tasks.promotion import model_card
from tasks.promotion.approval import ANSWERED, Answer, Question
from tasks.promotion.decision import Decision
from tasks.promotion.events import tell
from tasks.promotion.markdown import escaped
from tasks.promotion.model_card import Ancestor, CardConfig, CardInputs, comparison
from tasks.promotion.registered_version import RegisteredVersion
from tasks.promotion.registry import ModelRegistry
from tasks.retrain.versions import DataVersion


def decision_of(version: RegisteredVersion) -> Decision:
    """What was decided about a version."""
    return Decision.model_validate_json(version.tags["decision"])


def data_of(version: RegisteredVersion) -> DataVersion:
    """The training set of a version."""
    return DataVersion.model_validate_json(version.tags["data.version"])


def decision_tags(decision: Decision) -> dict[str, str]:
    """The decision whole, for programs, and its figures and words one by one, for MLflow's page."""
    figures = {name.replace("/", "."): f"{value:.6g}" for name, value in decision.metrics().items()}
    tags = figures | {"decision": decision.model_dump_json(), "decision.reason": decision.words}
    if decision.answer is not None:
        answer = decision.answer
        tags |= {"approval": "approved" if answer.approved else "rejected", "approval.by": answer.by}
        tags |= {"approval.reason": answer.reason, ANSWERED: answer.model_dump_json()}
    return tags


def heed(registry: ModelRegistry, version: RegisteredVersion, answer: Answer) -> RegisteredVersion:
    """Record an answer: it takes back a promotion that was rejected, or lets the aliases follow. Safe to repeat."""
    decision = decision_of(version).model_copy(update={"promoted": answer.approved, "answer": answer})
    tags = decision_tags(decision)
    return registry.redecide(version, promoted=answer.approved, parent=version.parent, tags=tags)


def advance(registry: ModelRegistry, version: RegisteredVersion) -> None:
    """Make the version's training set the newest in the place of those whose rows it has all seen, and of none beside
    it. One that has seen more, made meanwhile by another run, stays the newest."""
    data = data_of(version)
    heads = [DataVersion.model_validate_json(value) for value in registry.heads().values()]
    seen = {head.digest: head.ids_seen() for head in [*heads, data]}
    larger = [head for head in heads if seen[data.digest] < seen[head.digest]]
    newest = larger[0] if larger else data
    contained = [head for head in heads if seen[head.digest] <= seen[newest.digest]]
    registry.advance(newest.digest, newest.model_dump_json(), [head.digest for head in contained])


def conclude(run: FlowRun, registry: ModelRegistry, version: RegisteredVersion) -> Decision:
    """Do what is left once the aliases have followed the decision. Safe to repeat."""
    decision = decision_of(version)
    if decision.promoted:
        _write_card(run, registry, version, decision)
    else:
        registry.describe(version, f"Not promoted: {escaped(decision.words)}.")
    advance(registry, version)
    outcome: Literal["promoted", "refused"] = "promoted" if decision.promoted else "refused"
    tell(outcome, registry.name, version, reason=decision.words, by=version.run_id)
    registry.finish(version)
    figures = decision.metrics()
    run.tracking.metrics(run.run_id, figures)
    rows = [{"figure": name, "value": value} for name, value in figures.items()]
    table_artifact("retrain decision", [{"figure": "decision", "value": decision.words}, *rows], "Decision")
    return decision


def write_question(run: FlowRun, name: str, file: str, decision: Decision, rows: str) -> None:
    """Keep with the run what a person is shown: the comparison, and rows that changed (`rows` is Markdown)."""
    parts = [f"## May this candidate become champion of {escaped(name)}?", f"{escaped(decision.reason)}."]
    text = "\n\n".join([*parts, comparison(decision), rows]).rstrip() + "\n"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / file
        path.write_text(text, encoding="utf-8")
        run.tracking.artifact(run.run_id, path)


def read_question(tracking: Tracking, question: Question) -> str:
    """What a person is shown with a question."""
    with tempfile.TemporaryDirectory() as scratch:
        path = tracking.client.download_artifacts(question.run_id, question.file, scratch)
        return Path(path).read_text(encoding="utf-8")


def _write_card(
    run: FlowRun, registry: ModelRegistry, version: RegisteredVersion, decision: Decision
) -> None:
    inputs = CardInputs(
        name=registry.name,
        number=version.number,
        method=version.tags["method"],
        model=version.model,
        decision=decision,
        data=data_of(version),
        new_rows=int(version.tags["data.new_rows"]),
        held_out=DatasetRef.model_validate_json(version.tags["held_out"]),
        problem=version.tags["problem"],
        metrics=json.loads(version.tags["method.metrics"]),
        lineage=_lineage(registry, version),
        settings=json.loads(version.tags["method.settings"]),
    )
    path = fetch(run.stage(model_card.STAGE, CardConfig(), inputs, label="model card").card)
    run.tracking.artifact(version.run_id, path)
    registry.describe(version, path.read_text(encoding="utf-8"))


def _lineage(registry: ModelRegistry, version: RegisteredVersion) -> list[Ancestor]:
    by_number = {one.number: one for one in registry.versions()}
    found, parent = list[Ancestor](), version.parent
    while parent and len(found) < len(by_number):
        one = by_number[parent]
        accuracy, rows = decision_of(one).accuracy, int(one.tags["data.rows"])
        found.append(Ancestor(number=parent, digest=one.model.digest, rows=rows, accuracy=accuracy))
        parent = one.parent
    return found
