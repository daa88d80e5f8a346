"""The teacher: a local model by name, or a server's."""

from pydantic import BaseModel

from tasks import base_model
from tasks.base_model import ModelConfig, locate
from tasks.compress.weights import located
from tasks.core.flow_run import Run
from tasks.core.generators.load import EngineConfig, name_served
from tasks.core.references import ModelRef


class TeacherConfig(ModelConfig):
    """The model that writes new rows: a local one by name, or a server's (`engine`)."""

    engine: EngineConfig = EngineConfig()
    """What runs the teacher."""

    def weights(self) -> ModelConfig:
        """The local model alone, without what runs it."""
        return ModelConfig(**{name: getattr(self, name) for name in ModelConfig.model_fields})


def locate_teacher(config: TeacherConfig, field: str = "teacher") -> TeacherConfig:
    """Check that the teacher can be had, a server by asking it, and return it with the server's model filled in.

    `field` is where it stands in the flow's configuration. Raises UserError with the field and the mend.
    """
    engine = located(config.engine, f"{field}.engine")
    if engine.engine != "openai":
        locate(config.weights(), f"{field}.model")
    return config.model_copy(update={"engine": name_served(engine, field=f"{field}.engine")})


class Teacher(BaseModel):
    """A teacher that can be asked: what runs it, and its weights unless it is a server."""

    engine: EngineConfig
    weights: ModelRef | None = None


def load_teacher(run: Run, config: TeacherConfig, field: str = "teacher") -> Teacher:
    """The teacher of a configuration; a local model's weights are made a reference."""
    located = locate_teacher(config, field)
    if located.engine.engine == "openai":
        return Teacher(engine=located.engine)
    files = locate(config.weights(), f"{field}.model")
    found = run.stage(base_model.STAGE, config.weights(), files, label=field)
    return Teacher(engine=located.engine, weights=found.model)
