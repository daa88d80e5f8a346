"""LLMLingua-2 (arXiv 2403.12968): distil a prompt compressor from a teacher, train it, measure what it costs and saves.

pairs      = teacher(chunks of the texts)                    by deleting words only; answers are checked
labels     = align(chunk, its shorter text)                  per word: kept or not
kept       = pairs without the most varied and the worst aligned
compressor = encoder trained on kept                         tested on texts it did not see
measure: the same prompts whole, by the compressor, and by what it has to beat, at every rate
"""

from prefect import flow

from tasks import base_model
from tasks.augment.teacher import TeacherConfig, load_teacher, locate_teacher
from tasks.base_model import ENCODER, ModelConfig
from tasks.compress import quality, texts, training
from tasks.compress.distillation import distil
from tasks.compress.distilling import DistillationConfig
from tasks.compress.measurement import AnswersConfig, ArmsConfig, measure
from tasks.compress.measuring import MeasurementConfig
from tasks.compress.quality import QualityConfig, QualityInputs
from tasks.compress.result import CompressionResult, show
from tasks.compress.texts import TextsConfig
from tasks.compress.training import CompressorTrainingInputs
from tasks.compress.training_config import CompressorTrainingConfig
from tasks.core.errors import UserError
from tasks.core.flow_run import FlowConfig, FlowRun, check_run, open_run
from tasks.data import preparing
from tasks.data.config import DataConfig
from tasks.plan.fits import check_asked, check_trained


class CompressConfig(FlowConfig):
    """Distil a prompt compressor from a teacher, train it, and measure it. Defaults are the published method."""

    texts: TextsConfig = TextsConfig()
    """What the compressor learns from."""
    teacher: TeacherConfig = TeacherConfig()
    """The model that shortens texts by deleting words."""
    distillation: DistillationConfig = DistillationConfig()
    """How it is asked."""
    quality: QualityConfig = QualityConfig()
    """Which of its answers are learned from."""
    encoder: ModelConfig = ModelConfig(model=ENCODER)
    """The encoder that becomes the compressor: all-MiniLM-L6-v2 comes with the install."""
    training: CompressorTrainingConfig = CompressorTrainingConfig()
    """How it is trained."""
    data: DataConfig = DataConfig()
    """The prompts that compression is measured on; without `data.test` nothing is measured."""
    answers: AnswersConfig = AnswersConfig()
    """The model that answers them."""
    measured: ArmsConfig = ArmsConfig()
    """The rates, and what the compressor is measured against."""
    measurement: MeasurementConfig = MeasurementConfig()
    """How it is measured."""


def check(config: CompressConfig) -> None:
    """Everything that can be known to be wrong before a model is loaded. Raises UserError."""
    check_run(config)
    texts.read_texts(config.texts)
    training.check(config.training, processes=config.launch.total)
    base_model.locate(config.encoder, "encoder.model")
    teacher = locate_teacher(config.teacher)
    check_asked(config, teacher.weights(), teacher.engine, field="teacher.model")
    if not config.data.test:
        return
    preparing.check(config.data)
    asked = locate_teacher(config.answers, "answers")
    check_asked(config, asked.weights(), asked.engine, field="answers.model")
    if config.answers.fine_tune and config.answers.engine.engine == "openai":
        raise UserError(
            "a server's model cannot be trained", field="answers.fine_tune", mend="set it to false"
        )
    if config.answers.fine_tune:
        trained = {"field": "answers.model", "part": "answers.training"}
        check_trained(asked.weights(), config.answers.training, config.launch, **trained)


@flow(name="compress")
def compress(config: CompressConfig = CompressConfig()) -> CompressionResult:  # noqa: B008 - the model is frozen
    """Distil a prompt compressor from a teacher, train it, and measure it."""
    check(config)
    with open_run("compress", config) as run:
        return loop(run, config)


def loop(run: FlowRun, config: CompressConfig) -> CompressionResult:
    """The algorithm; `run` decides how its stages are run."""
    files = base_model.locate(config.encoder, "encoder.model")
    encoder = run.stage(base_model.STAGE, config.encoder, files, label="encoder").model
    teacher = load_teacher(run, config.teacher)
    measured = None
    with run.iterate(1) as metrics:
        chunks = run.stage(texts.STAGE, config.texts, texts.inputs(config.texts, encoder), label="texts")
        run.dataset(chunks.chunks, "texts")
        distilled = distil(run, config.distillation, teacher, chunks)
        judged = QualityInputs(
            pairs=[shard.pairs for shard in distilled.shards],
            unusable=[shard.unusable for shard in distilled.shards],
        )
        pairs = run.stage(quality.STAGE, config.quality, judged, label="quality control")
        run.dataset(pairs.train, "train")
        learned = CompressorTrainingInputs(encoder=encoder, train=pairs.train, test=pairs.test)
        trained = run.stage(training.STAGE, config.training, learned, label="train", training=True)
        metrics |= distilled.metrics() | pairs.metrics() | trained.metrics()
        if config.data.test:
            measured = measure(
                run, config.measurement, config.measured, config.data, config.answers, trained.model
            )
            metrics |= measured.metrics()
    return show(
        run, pairs, trained, measured.results if measured else [], config.measurement.evaluation.confidence
    )


CONFIG, FLOW = CompressConfig, compress
