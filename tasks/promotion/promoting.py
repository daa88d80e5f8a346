"""From a trained candidate to the present champion: compare, register, let the aliases follow, write the card.

Whatever follows from a registered version is made of its tags alone, so that another run can finish what a killed one
began, and comes to the same.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tasks import base_model, evaluate
from tasks.core.artifacts import table_artifact
from tasks.core.flow_result import FlowResult
from tasks.core.flow_run import FlowConfig, FlowRun
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.store import fetch
from tasks.core.tracking import flatten
from tasks.data import preparing
from tasks.data.preparing import PreparedData
from tasks.evaluate import EvaluationInputs, Prediction
from tasks.ppo import merge
from tasks.ppo.merge import MergeConfig, MergeInputs
from tasks.promotion import model_card
from tasks.promotion.decision import Decision, PromotionConfig, decide
from tasks.promotion.events import tell
from tasks.promotion.loading import write_served
from tasks.promotion.model_card import Ancestor, CardConfig, CardInputs
from tasks.promotion.registered_version import RegisteredVersion
from tasks.promotion.registry import CHAMPION, ModelRegistry
from tasks.promotion.served import as_evaluated
from tasks.report.compare import read_predictions
from tasks.retrain.method import improved_model, model_field
from tasks.retrain.new_rows import NewRows
from tasks.retrain.versions import DataVersion

_SERVED = "model"
"""Where the folder that MLflow loads stands among a run's artifacts."""


@dataclass(frozen=True)
class Promotion:
    """How the candidates of one registered model are compared and registered; `method` is what trains them."""

    run: FlowRun
    registry: ModelRegistry
    config: PromotionConfig
    method: FlowConfig
    method_name: str

    def start(self, champion: RegisteredVersion | None) -> str:
        """The folder of the champion's full weights, its adapter merged, for a method to start from; empty without
        one."""
        if champion is None:
            return ""
        model = champion.model
        if model.base is not None:
            inputs = MergeInputs(model=model)
            model = self.run.stage(merge.STAGE, MergeConfig(), inputs, label="merge champion").model
        return str(fetch(model))

    def register(self, trained: FlowResult, found: NewRows) -> RegisteredVersion:
        """Compare the candidate with the champion of this moment and register it with the decision."""
        assert trained.model is not None  # a method that ends well has trained one
        data = self._prepared(found.version)
        decision, parent = self._compare(trained.model, data)
        served = as_evaluated(trained.model, data.problem, self._evaluation())
        with tempfile.TemporaryDirectory() as scratch:
            write_served(Path(scratch) / _SERVED, served)
            self.run.tracking.artifact(self.run.run_id, Path(scratch) / _SERVED, _SERVED)
        tags = _decision_tags(decision) | {
            "method": self.method_name,
            "method.run": trained.mlflow_run_id,
            "method.metrics": json.dumps(trained.metrics, sort_keys=True),
            "method.settings": json.dumps(_settings(self.method)),
            "prefect.flow_run_id": self.run.flow_run_id,
            "data.version": found.version.model_dump_json(),
            "data.digest": found.version.rows.digest,
            "data.rows": str(found.version.rows.rows),
            "data.new_rows": str(found.new),
            "held_out": data.test.model_dump_json(),
            "problem": data.problem.name,
        }
        return self.registry.register(
            trained.model,
            work=found.version.digest,
            promoted=decision.promoted,
            parent=parent,
            run_id=self.run.run_id,
            source=_SERVED,
            tags=tags,
        )

    def complete(self, version: RegisteredVersion) -> Decision:
        """Do what follows from a registered version: aliases, card, data version. Safe to repeat from anywhere."""
        data = DataVersion.model_validate_json(version.tags["data.version"])
        while not self.registry.settle(version):  # another candidate was promoted meanwhile
            decision, parent = self._compare(version.model, self._prepared(data))
            version = self.registry.redecide(
                version, promoted=decision.promoted, parent=parent, tags=_decision_tags(decision)
            )
        decision = Decision.model_validate_json(version.tags["decision"])
        if decision.promoted:
            self._write_card(version, decision, data)
        else:
            self.registry.describe(version, f"Not promoted: {model_card.escaped(decision.reason)}.")
        self._advance(data)
        outcome: Literal["promoted", "refused"] = "promoted" if decision.promoted else "refused"
        tell(outcome, self.registry.name, version, reason=decision.reason, by=version.run_id)
        self.registry.finish(version)
        figures = decision.metrics()
        self.run.tracking.metrics(self.run.run_id, figures)
        rows = [{"figure": name, "value": value} for name, value in figures.items()]
        table_artifact(
            "retrain decision", [{"figure": "decision", "value": decision.reason}, *rows], "Decision"
        )
        return decision

    def _advance(self, data: DataVersion) -> None:
        """Make `data` the newest version in the place of those whose rows it has all seen, and of none beside it. One
        that has seen more, made meanwhile by another run, stays the newest."""
        heads = [DataVersion.model_validate_json(value) for value in self.registry.heads().values()]
        seen = {head.digest: head.ids_seen() for head in [*heads, data]}
        larger = [head for head in heads if seen[data.digest] < seen[head.digest]]
        newest = larger[0] if larger else data
        contained = [head for head in heads if seen[head.digest] <= seen[newest.digest]]
        self.registry.advance(newest.digest, newest.model_dump_json(), [head.digest for head in contained])

    def _compare(self, candidate: ModelRef, data: PreparedData) -> tuple[Decision, str]:
        """The decision, and the number of the champion that it was made against."""
        champion = self.registry.at(CHAMPION)
        answers = self._answers(candidate, data, "candidate")
        opponent: list[Prediction] | None = None
        against: Literal["champion", "base model"] = "champion"
        if champion is not None:
            opponent = self._answers(champion.model, data, "champion")
        elif self.config.first == "compare_with_base":
            against, own = "base model", improved_model(self.method)
            files = base_model.locate(own, f"{model_field(self.method)}.model")
            base = self.run.stage(base_model.STAGE, own, files, label="base model").model
            opponent = self._answers(base, data, "base model")
        decision = decide(answers, opponent, self.config, against=against)
        return decision, champion.number if champion else ""

    def _answers(self, model: ModelRef, data: PreparedData, who: str) -> list[Prediction]:
        inputs = EvaluationInputs(model=model, splits={"test": data.test}, problem=data.problem)
        tested = self.run.stage(evaluate.STAGE, self._evaluation(), inputs, label=f"evaluate {who}")
        return read_predictions(tested.splits["test"].predictions)

    def _prepared(self, version: DataVersion) -> PreparedData:
        """Problem and held-out rows as the method has them with this training set."""
        config = self.method.data.model_copy(update={"train": version.train.uri})  # type: ignore[attr-defined]
        return self.run.stage(preparing.STAGE, config, preparing.inputs(config), label="held-out rows")

    def _evaluation(self) -> evaluate.EvaluationConfig:
        found: evaluate.EvaluationConfig = self.method.evaluation  # type: ignore[attr-defined]
        return found

    def _write_card(self, version: RegisteredVersion, decision: Decision, data: DataVersion) -> None:
        inputs = CardInputs(
            name=self.registry.name,
            number=version.number,
            method=version.tags["method"],
            model=version.model,
            decision=decision,
            data=data,
            new_rows=int(version.tags["data.new_rows"]),
            held_out=DatasetRef.model_validate_json(version.tags["held_out"]),
            problem=version.tags["problem"],
            metrics=json.loads(version.tags["method.metrics"]),
            lineage=self._lineage(version),
            settings=json.loads(version.tags["method.settings"]),
        )
        card = self.run.stage(model_card.STAGE, CardConfig(), inputs, label="model card").card
        path = fetch(card)
        self.run.tracking.artifact(version.run_id, path)
        self.registry.describe(version, path.read_text(encoding="utf-8"))

    def _lineage(self, version: RegisteredVersion) -> list[Ancestor]:
        by_number = {one.number: one for one in self.registry.versions()}
        found, parent = list[Ancestor](), version.parent
        while parent and len(found) < len(by_number):
            one = by_number[parent]
            accuracy = Decision.model_validate_json(one.tags["decision"]).accuracy
            rows = int(one.tags["data.rows"])
            found.append(Ancestor(number=parent, digest=one.model.digest, rows=rows, accuracy=accuracy))
            parent = one.parent
        return found


def _decision_tags(decision: Decision) -> dict[str, str]:
    """The decision whole, for programs, and its figures one by one, for MLflow's page."""
    figures = {name.replace("/", "."): f"{value:.6g}" for name, value in decision.metrics().items()}
    return figures | {"decision": decision.model_dump_json(), "decision.reason": decision.reason}


def _settings(method: FlowConfig) -> dict[str, Any]:
    return {name: str(value) for name, value in flatten(method.model_dump(mode="json")).items()}
