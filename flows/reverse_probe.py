"""Reverse probe: the direction gap of any model on a table of facts; nothing is trained.

ask every fact in both directions; gap = accuracy forward less accuracy backward
"""

from prefect import flow

from tasks import base_model
from tasks.base_model import ModelConfig
from tasks.compress.weights import located
from tasks.core.flow_run import FlowConfig, Run, check_run, open_run
from tasks.core.generators.load import name_served
from tasks.core.references import ModelRef
from tasks.direction.measured import DirectionRecord, Examination
from tasks.direction.show import DirectionFlowResult, show_directions
from tasks.evaluate import EvaluationConfig
from tasks.facts import stage as facts
from tasks.facts.config import FactsConfig


class ReverseProbeConfig(FlowConfig):
    """Ask a model every fact of a table in both directions."""

    facts: FactsConfig = FactsConfig()
    """The facts."""
    student: ModelConfig = ModelConfig()
    """The model that is asked. Of a server (`evaluation.engine.engine=openai`) it is not loaded."""
    evaluation: EvaluationConfig = EvaluationConfig(max_new_tokens=24)
    """How it is asked."""


def check(config: ReverseProbeConfig) -> None:
    """Everything that can be known to be wrong before a model is loaded. Raises UserError."""
    check_run(config)
    facts.check(config.facts)
    base_model.locate(config.student, "student.model")
    asked(config)


@flow(name="reverse_probe")
def reverse_probe(config: ReverseProbeConfig = ReverseProbeConfig()) -> DirectionFlowResult:  # noqa: B008 - frozen
    """Ask a model every fact of a table in both directions."""
    check(config)
    with open_run("reverse-probe", config) as run:
        return show_directions(run, ask(run, config))


def ask(run: Run, config: ReverseProbeConfig) -> DirectionRecord:
    """The measurement; `run` decides how its stages are run."""
    table = run.stage(facts.STAGE, config.facts, facts.inputs(config.facts), label="facts")
    files = base_model.locate(config.student, "student.model")
    model: ModelRef = run.stage(base_model.STAGE, config.student, files, label="student").model
    run.dataset(table.backward, "test")
    evaluation = asked(config)
    served = evaluation.engine.endpoint.model if evaluation.engine.engine == "openai" else ""
    found = Examination(run, table, evaluation).of(model, served or config.student.model)
    return DirectionRecord([found], model=model)


def asked(config: ReverseProbeConfig) -> EvaluationConfig:
    """The evaluation with all that it needs found: its compressor, and the model of a server. Raises UserError."""
    engine = located(config.evaluation.engine, "evaluation.engine")
    return config.evaluation.model_copy(update={"engine": name_served(engine, field="evaluation.engine")})


CONFIG, FLOW = ReverseProbeConfig, reverse_probe
