"""Instruction data from a handful of seeds (survey: arXiv 2308.10792).

pool = seeds
until there are enough rows, or the budget is used up:
    ask for instructions: new tasks from eight shown ones   Self-Instruct
                          a row made harder, or broader     Evol-Instruct
                          the instruction for a text        backtranslation
                          a row in other words              paraphrase
    drop duplicates, failed evolutions, what resembles a test row
    have the others answered (a text's instruction: marked), drop refusals and low marks
    pool += kept
embed and cluster all; optionally train a student on the new rows, and test it before and after
"""

from prefect import flow

from tasks import base_model
from tasks.augment.teacher import TeacherConfig, load_teacher, locate_teacher
from tasks.base_model import ENCODER, ModelConfig
from tasks.core.flow_run import FlowConfig, FlowRun, check_run, open_run
from tasks.core.references import DatasetRef
from tasks.instruct import config, data, mapping, stage
from tasks.instruct.config import WritingConfig
from tasks.instruct.data import InstructDataConfig
from tasks.instruct.mapping import MapConfig, MapInputs, MapResult
from tasks.instruct.show import InstructFlowResult, show_instructions
from tasks.instruct.stage import WritingInputs
from tasks.instruct.training import StudentConfig, check_student, train_and_test
from tasks.plan.fits import check_asked, check_trained


class InstructConfig(FlowConfig):
    """Write instruction data from seeds, by a mix of strategies, within a budget."""

    data: InstructDataConfig = InstructDataConfig()
    """The seeds, and what else is needed."""
    teacher: TeacherConfig = TeacherConfig()
    """The model that writes and answers."""
    writing: WritingConfig = WritingConfig()
    """How much, by which strategies, and what is kept."""
    map: MapConfig = MapConfig()
    """What seeds and new rows cover."""
    encoder: ModelConfig = ModelConfig(model=ENCODER)
    """The encoder that embeds them; the default comes with the install."""
    student: StudentConfig = StudentConfig()
    """A model that is trained on the new rows, and tested before and after."""


def check(settings: InstructConfig) -> None:
    """Everything that can be known to be wrong before a model is loaded. Raises UserError."""
    check_run(settings)
    config.check(settings.writing, bool(settings.data.texts))
    data.read(settings.data)
    check_student(settings.student, settings.data, processes=settings.launch.total)
    if settings.map.on:
        base_model.locate(settings.encoder, "encoder.model")
    teacher = locate_teacher(settings.teacher)
    check_asked(settings, teacher.weights(), teacher.engine, field="teacher.model")
    if settings.student.on:
        trained = {"field": "student.model.model", "part": "student.training"}
        check_trained(settings.student.model, settings.student.training, settings.launch, **trained)


@flow(name="instruct")
def instruct(config: InstructConfig = InstructConfig()) -> InstructFlowResult:  # noqa: B008 - the model is frozen
    """Write instruction data from seeds, by a mix of strategies, within a budget."""
    check(config)
    with open_run("instruct", config) as run:
        return loop(run, config)


def loop(run: FlowRun, settings: InstructConfig) -> InstructFlowResult:
    """The algorithm; its rounds are in `tasks.instruct.writing`."""
    rows = run.stage(data.STAGE, settings.data, data.inputs(settings.data), label="data")
    run.dataset(rows.seeds, "seeds")
    teacher = load_teacher(run, settings.teacher)
    written = run.stage(
        stage.STAGE, settings.writing, WritingInputs(teacher=teacher, data=rows), label="write"
    )
    run.dataset(written.rows, "written")
    found = _map(run, settings, rows.seeds, written.rows) if settings.map.on and written.rows.rows else None
    trained = None
    if settings.student.on and written.rows.rows and rows.test:
        trained = train_and_test(run, settings.student, written.rows, rows.test)
    return show_instructions(run, settings.writing.rows, rows.seeds, written, found, trained)


def _map(run: FlowRun, settings: InstructConfig, seeds: DatasetRef, rows: DatasetRef) -> MapResult:
    files = base_model.locate(settings.encoder, "encoder.model")
    encoder = run.stage(base_model.STAGE, settings.encoder, files, label="encoder").model
    return run.stage(
        mapping.STAGE, settings.map, MapInputs(encoder=encoder, seeds=seeds, rows=rows), label="map"
    )


CONFIG, FLOW = InstructConfig, instruct
