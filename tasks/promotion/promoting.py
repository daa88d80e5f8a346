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
from tasks.compress.weights import located
from tasks.core.flow_result import FlowResult
from tasks.core.flow_run import FlowConfig, FlowRun
from tasks.core.references import ModelRef
from tasks.core.store import fetch
from tasks.core.tracking import recorded
from tasks.data import preparing
from tasks.data.preparing import PreparedData
from tasks.evaluate import EvaluationInputs, Prediction
from tasks.ppo import merge
from tasks.ppo.merge import MergeConfig, MergeInputs
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
from tasks.promotion.concluding import (
    advance,
    conclude,
    data_of,
    decision_tags,
    heed,
    read_question,
    write_question,
)
from tasks.promotion.decision import Decision, PromotionConfig, decide
from tasks.promotion.loading import write_served
from tasks.promotion.registered_version import RegisteredVersion
from tasks.promotion.registry import CHAMPION, ModelRegistry
from tasks.promotion.served import as_evaluated
from tasks.promotion.suspension import can_suspend, forget_waking, read_answer, suspend
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
        approval = self.config.approval
        hours = approval.timeout_hours if approval.ask else None
        decision, parent, asked = self._compare(trained.model, data, hours)
        served = as_evaluated(trained.model, data.problem, self._evaluation())
        with tempfile.TemporaryDirectory() as scratch:
            write_served(Path(scratch) / _SERVED, served)
            self.run.tracking.artifact(self.run.run_id, Path(scratch) / _SERVED, _SERVED)
        tags = asked | {
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

    def own(self) -> RegisteredVersion | None:
        """The version that this Prefect run registered before its process ended, if it did."""
        run = self.run.flow_run_id
        found = [one for one in self.registry.versions() if one.tags.get("prefect.flow_run_id") == run]
        return found[-1] if run and found else None

    def complete(self, version: RegisteredVersion, *, ask: bool = True) -> Decision | None:
        """Do what follows from a registered version: a person's answer, aliases, card, data version. Safe to repeat
        from anywhere.

        None while a person is still to answer. Where Prefect can start this run anew it is suspended for that, unless
        `ask` is false (the version is another run's): this raises Prefect's Pause.
        """
        while True:
            if (question := question_of(version)) is not None:
                advance(self.registry, version)  # its rows are no news any more, whatever the answer
                answer = self._answer(version, question, ask)
                if answer is None:
                    return None
                version = heed(self.registry, version, answer)
            if self.registry.settle(version):
                return conclude(self.run, self.registry, version)
            # Another candidate was promoted meanwhile.
            data = data_of(version)
            hours = question.hours if question else None
            decision, parent, tags = self._compare(version.model, self._prepared(data), hours)
            version = self.registry.redecide(version, promoted=decision.promoted, parent=parent, tags=tags)

    def _answer(self, version: RegisteredVersion, question: Question, ask: bool) -> Answer | None:
        """The answer that was given by now; suspends the run when there is none, unless that is not its to do."""
        ask = ask and can_suspend()
        given = answer_of(version, question) or (read_answer(version.number, question) if ask else None)
        if given is None and (given := overdue(question)) is not None and not ask:
            self.run.tracking.end_suspended(
                question.run_id
            )  # it was cancelled: else it had been started anew by now
        if given is None and ask:
            suspend(version.number, question, read_question(self.run.tracking, question))
        elif ask:
            forget_waking()
        return given

    def _compare(
        self, candidate: ModelRef, data: PreparedData, hours: float | None
    ) -> tuple[Decision, str, dict[str, str]]:
        """The decision, the number of the champion that it was made against, and the version's tags for it; with
        `hours` a better candidate waits for a person's answer for so long."""
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
        parent, tags = champion.number if champion else "", decision_tags(decision)
        if decision.promoted and hours is not None:
            question, rows = make_question(parent, hours, self.run.run_id, candidate.digest), ""
            if opponent is not None:
                approval, seed = self.config.approval, self.config.seed
                rows = changed_rows(opponent, answers, most=approval.rows, seed=seed, against=against)
            write_question(self.run, self.registry.name, question.file, decision, rows)
            tags[ASKED] = question.model_dump_json()
        return decision, parent, tags

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
        return found.model_copy(update={"engine": located(found.engine, "evaluation.engine")})


def _settings(method: FlowConfig) -> dict[str, Any]:
    return {name: str(value) for name, value in recorded(method).items()}
