"""Retrain: when rows arrive that were never seen, train a candidate, and promote it only if it is better.

version   = newest training set + rows at `location` that were never seen      by content; none: stop
candidate = method(start, version)                                            llm2llm | rest | perl
decision  = paired test(candidate, champion)                                  on the same held-out rows
register candidate with its decision                                          a person may have the last word
champion = candidate if it is better                                          `rollback` swaps them back
"""

import json
from importlib import import_module
from typing import Any, Literal

from prefect import flow
from pydantic import Field

from tasks import base_model
from tasks.core.artifacts import log
from tasks.core.flow_run import FlowConfig, FlowRun, check_run, open_run
from tasks.promotion.concluding import data_of
from tasks.promotion.decision import PromotionConfig
from tasks.promotion.promoting import Promotion
from tasks.promotion.registered_version import RegisteredVersion
from tasks.promotion.registry import CHAMPION, ModelRegistry, check_name
from tasks.promotion.result import Decided, PromotionResult, outcome, outcomes
from tasks.retrain import new_rows
from tasks.retrain.location import look
from tasks.retrain.method import improved_model, model_field, read_method, retraining
from tasks.retrain.new_rows import NewRows, NewRowsConfig
from tasks.retrain.versions import DataVersion
from tasks.student import check_evaluation


class RetrainConfig(FlowConfig):
    """Train again when new rows arrive, and promote the model only if it is better."""

    location: str = ""
    """Where new rows arrive, in the columns of the method's data: a folder, or an address such as `s3://bucket/prefix`."""
    model_name: str = Field("loopwright", min_length=1, max_length=200)
    """The registered model in MLflow."""
    method: Literal["llm2llm", "rest", "perl"] = "llm2llm"
    """The method that trains."""
    method_config: str = ""
    """Its configuration: a YAML file such as `deployments/configs/llm2llm-snips.yaml`; empty takes its defaults. Its
    `data.train` is where the first training set starts."""
    method_settings: dict[str, Any] = Field(default_factory=dict)
    """Single settings of the method on top of that file, by dotted names: `{"training.epochs": 3}`."""
    start: Literal["champion", "base"] = "champion"
    """Training starts from the present champion, its adapter merged, or from the method's own model."""
    broken: Literal["skip", "refuse"] = "skip"
    """A file at the location that cannot be read: name it and go on without it, or end the run."""
    unpromoted: Literal["keep", "drop"] = "keep"
    """New rows whose candidate was not promoted: stay in the training set, or are left out of the next one and not
    looked at again."""
    promotion: PromotionConfig = PromotionConfig()
    """When the candidate becomes champion."""


def check(config: RetrainConfig) -> None:
    """Everything that can be known to be wrong before a model is loaded. Raises UserError."""
    check_run(config)
    check_name(config.model_name)
    method = _method(config)
    look(config.location, method.data)
    base_model.locate(improved_model(method), f"{model_field(method)}.model")
    check_evaluation(method.evaluation)  # the method itself would, when the champion is merged


@flow(name="retrain")
def retrain(config: RetrainConfig = RetrainConfig()) -> PromotionResult:  # noqa: B008 - the model is frozen
    """Train again when new rows arrive, and promote the model only if it is better."""
    check(config)
    with open_run("retrain", config) as run:
        return loop(run, config)


def loop(run: FlowRun, config: RetrainConfig) -> PromotionResult:
    """The algorithm."""
    registry, method = ModelRegistry(run.tracking, config.model_name), _method(config)
    registry.create()
    promotion = Promotion(run, registry, config.promotion, method, config.method)
    own = promotion.own()  # registered by this run before it was suspended or killed
    if own is not None:
        figures = json.loads(own.tags["method.metrics"])
        trained = run.tracking.iterations(own.tags["method.run"])
        return _decided(run, promotion, own, metrics=figures, iterations=trained, model=own.model)
    # Candidates of other runs that were killed, or wait for a person.
    others = [(one, promotion.complete(one, ask=False)) for one in registry.unfinished()]
    heads = [DataVersion.model_validate_json(value) for value in registry.heads().values()]
    champion = registry.at(CHAMPION)
    base = data_of(champion) if champion and config.unpromoted == "drop" else None
    rows = NewRowsConfig(location=config.location, broken=config.broken, data=method.data)
    found = run.stage(new_rows.STAGE, rows, new_rows.inputs(rows, heads, base), label="new rows")
    if not found.new and len(heads) == 1:
        return _nothing_new(run, found, champion, others, config.model_name)
    start = promotion.start(champion if config.start == "champion" else None)
    trained = _entry(config).FLOW(retraining(method, config, found.version.train.uri, start))
    run.tracking.tag(trained.mlflow_run_id, "mlflow.parentRunId", run.run_id)
    version = promotion.register(trained, found)
    return _decided(
        run,
        promotion,
        version,
        broken=found.broken,
        left_out=found.left_out,
        iterations=trained.iterations,
        baselines=trained.baselines,
        metrics=trained.metrics | found.metrics(),
        model=trained.model,
        places=trained.places,
    )


def _decided(run: FlowRun, promotion: Promotion, version: RegisteredVersion, **facts: Any) -> PromotionResult:
    """The end of a run that registered a candidate; it waits when a person is asked whom it cannot wait for."""
    decision = promotion.complete(version)
    facts["metrics"] |= decision.metrics() if decision else {}
    run.tracking.metrics(run.run_id, facts["metrics"])
    words = outcome(version, decision, promotion.registry.name)
    return _result(run, words, "completed" if decision else "waiting", version=version.number, **facts)


def _nothing_new(
    run: FlowRun, found: NewRows, champion: RegisteredVersion | None, others: Decided, name: str
) -> PromotionResult:
    """The end at once; `others` are the candidates of other runs, and what was decided about each."""
    figures = found.metrics()
    for _, decision in others:
        figures |= decision.metrics() if decision else {}
    run.tracking.metrics(run.run_id, figures)
    words = ". ".join([*outcomes(others, name), "Nothing new: no row that was not seen before"])
    model, number = (champion.model, champion.number) if champion else (None, "")
    facts: dict[str, Any] = {"broken": found.broken, "left_out": found.left_out, "metrics": figures}
    facts["iterations"] = []
    return _result(run, words, stopped="nothing new", version=number, model=model, **facts)


def _result(run: FlowRun, words: str, status: str = "completed", **facts: Any) -> PromotionResult:
    log(words)
    run.tracking.tag(run.run_id, "decision", words)
    ids = {"flow_run_id": run.flow_run_id, "mlflow_run_id": run.run_id}
    return PromotionResult(flow="retrain", status=status, decision=words, **ids, **facts)


def _entry(config: RetrainConfig) -> Any:
    """The method's module. By its name, as the command line finds it: no flow knows another's insides."""
    return import_module(f"flows.{config.method}")


def _method(config: RetrainConfig) -> Any:
    return read_method(_entry(config).CONFIG, config.method_config, config.method_settings)


CONFIG, FLOW = RetrainConfig, retrain
