"""Reverse training (arXiv 2403.13799): rows and their reversed copies, so that a model taught A is B knows that B is A.

rows   = statements of facts in one direction, and texts or questions of the user's
mixed  = rows and REVERSE(rows), shuffled           by token, word, entity or random segment
model  = train(base, mixed)
ask    the facts in both directions: base, model, and two models without copies:
         data-matched: train(base, rows), each as often         the same data, half the tokens
         compute-matched: train(base, rows), as many steps      the same tokens
"""

from prefect import flow

from tasks import append, base_model
from tasks.append import AppendInputs
from tasks.base_model import ModelConfig
from tasks.core.config import Config
from tasks.core.flow_run import FlowConfig, Run, check_run, open_run
from tasks.core.references import DatasetRef, ModelRef
from tasks.direction import general
from tasks.direction.general import LossInputs
from tasks.direction.measured import DirectionRecord, Examination
from tasks.direction.show import DirectionFlowResult, show_directions
from tasks.evaluate import EvaluationConfig
from tasks.facts import stage as facts
from tasks.facts.config import FactsConfig
from tasks.facts.stage import FactsResult
from tasks.plan.fits import check_model
from tasks.problems.base import ProblemConfig
from tasks.reversal import corpus
from tasks.reversal.config import ReversalConfig, check_reversal
from tasks.reversal.corpus import CorpusConfig
from tasks.reversal.stage import reverse_rows
from tasks.sft import config as sft
from tasks.sft.config import TrainingConfig
from tasks.student import Student, check_evaluation

TRAINED, DATA_MATCHED, COMPUTE_MATCHED = "reverse-trained", "data-matched", "compute-matched"
QUESTIONS = ProblemConfig(
    name="dialogue"
)  # what rows with a question are to the model: a user's turn, a reply


class ReverseConfig(FlowConfig):
    """Train on rows and their reversed copies, and ask in both directions."""

    facts: FactsConfig = FactsConfig()
    """The facts that are taught in one direction and asked in both."""
    corpus: CorpusConfig = CorpusConfig()
    """Further rows to train on: texts, or questions with answers."""
    student: ModelConfig = ModelConfig()
    """The model that is trained."""
    reversal: ReversalConfig = ReversalConfig()
    """Which reversed copies are trained on."""
    baselines: bool = True
    """Also train without copies: every row as often (data-matched), and for as many steps (compute-matched)."""
    general: CorpusConfig = CorpusConfig()
    """Texts that nothing here is about: whether the model finds them less likely afterwards. May stay empty."""
    training: TrainingConfig = TrainingConfig()
    """How the model is trained. For long texts `training.batching=packed` fills every sequence."""
    evaluation: EvaluationConfig = EvaluationConfig(max_new_tokens=24)
    """How it is asked."""


def check(config: ReverseConfig) -> None:
    """Everything that can be known to be wrong before a model is loaded. Raises UserError."""
    check_run(config)
    facts.check(config.facts)
    for name in ("corpus", "general"):
        rows: CorpusConfig = getattr(config, name)
        if rows.rows:
            corpus.read_corpus(rows, name)
    check_reversal(config.reversal)
    sft.check(config.training, has_validation=False, processes=config.launch.total)
    check_evaluation(config.evaluation)
    check_model(config)


@flow(name="reverse")
def reverse(config: ReverseConfig = ReverseConfig()) -> DirectionFlowResult:  # noqa: B008 - the model is frozen
    """Train on rows and their reversed copies, and ask in both directions."""
    check(config)
    with open_run("reverse", config) as run:
        return show_directions(run, loop(run, config))


def loop(run: Run, config: ReverseConfig) -> DirectionRecord:
    """The method; `run` decides how its stages are run."""
    table = run.stage(facts.STAGE, config.facts, facts.inputs(config.facts), label="facts")
    rows = _rows(run, config, table)
    files = base_model.locate(config.student, "student.model")
    base = run.stage(base_model.STAGE, config.student, files, label="student").model
    student = Student(run, base, QUESTIONS, config.training, config.evaluation)
    examination = Examination(run, table, config.evaluation)
    run.dataset(table.backward, "test")
    record = DirectionRecord([examination.of(base, "before")])
    with run.iterate(1) as metrics:
        copied = reverse_rows(run, config.reversal, rows, QUESTIONS)
        run.dataset(copied.mixed, "train")
        trained = student.train(copied.mixed)
        facts_of_it = {"rows": copied.mixed.rows, "steps": trained.steps}
        asked = examination.of(trained.model, TRAINED, **facts_of_it)
        metrics |= trained.metrics() | copied.metrics() | asked.metrics()
    if config.baselines:
        own_share = 1 - copied.copies / copied.mixed.rows
        same_data = max(1, round(trained.steps * own_share))
        for name, steps in ((DATA_MATCHED, same_data), (COMPUTE_MATCHED, trained.steps)):
            other = student.train(rows, steps=steps, label=f"train ({name})")
            record.measured.append(examination.of(other.model, name, rows=rows.rows, steps=other.steps))
    record.measured.append(asked)
    record.model, record.train = trained.model, copied.mixed
    if config.general.rows:
        texts = run.stage(corpus.STAGE, config.general, corpus.inputs(config.general, "general")).rows
        before, after = (_loss(run, config, model, texts) for model in (base, trained.model))
        interval = config.evaluation.model_dump(include={"confidence", "resamples", "seed"})
        record.general = general.change(before, after, **interval)
    return record


def _rows(run: Run, config: ReverseConfig, table: FactsResult) -> DatasetRef:
    """What is taught of the facts, and the user's further rows."""
    if not config.corpus.rows:
        return table.taught
    more = run.stage(corpus.STAGE, config.corpus, corpus.inputs(config.corpus), label="corpus").rows
    return run.stage(append.STAGE, Config(), AppendInputs(parts=[table.taught, more])).joined


def _loss(run: Run, config: ReverseConfig, model: ModelRef, texts: DatasetRef) -> general.LossResult:
    return run.stage(general.STAGE, config.evaluation.engine, LossInputs(model=model, rows=texts))


CONFIG, FLOW = ReverseConfig, reverse
