"""A registered model as MLflow loads it: rows with an `input` go in, completions come out, as they were evaluated."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tasks.core.compression.config import CompressorConfig
from tasks.core.examples import make_example
from tasks.core.generators.base import Sampling
from tasks.core.generators.load import EngineConfig, load_generator
from tasks.core.models import Precision
from tasks.core.references import ModelRef
from tasks.evaluate import EvaluationConfig
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem

if TYPE_CHECKING:
    import pandas

SERVED = "served.json"


class Served(BaseModel):
    """What answering takes: the weights' reference, the problem that makes prompts, and how answers are drawn."""

    model: ModelRef
    problem: ProblemConfig
    sampling: Sampling
    precision: Precision = "auto"
    compressor: CompressorConfig = CompressorConfig()


def as_evaluated(model: ModelRef, problem: ProblemConfig, evaluation: EvaluationConfig) -> Served:
    """The model as `evaluation` asks it; of its compressor, if it has one, address and digest are known by now."""
    loaded = load_problem(problem)
    sampling = Sampling(
        max_new_tokens=evaluation.max_new_tokens or loaded.max_new_tokens,
        temperature=evaluation.temperature,
        top_p=evaluation.top_p,
        seed=evaluation.seed,
        choices=loaded.choices if evaluation.restricted else (),
    )
    engine = evaluation.engine
    return Served(
        model=model,
        problem=problem,
        sampling=sampling,
        precision=engine.precision,
        compressor=engine.compressor,
    )


class ServedModel:
    """What `mlflow.pyfunc.load_model` wraps; the weights are loaded with it, their digests checked."""

    def __init__(self, served: Served) -> None:
        self._problem = load_problem(served.problem)
        engine = EngineConfig(precision=served.precision, compressor=served.compressor)
        self._generator = load_generator(engine, served.model, field="evaluation.engine")
        self._sampling = served.sampling

    def predict(self, rows: "pandas.DataFrame", params: dict[str, Any] | None = None) -> "pandas.DataFrame":
        """The completion of each row's `input` (and `choices`, where the problem has them)."""
        import pandas

        choices = rows["choices"] if "choices" in rows else [()] * len(rows)
        # An adapted dialogue ends with the user's words, and what is asked here does so as it stands.
        examples = [
            make_example(str(text), "", [] if some is None else some)
            for text, some in zip(rows["input"], choices, strict=True)
        ]
        prompts = [self._problem.prompt(example) for example in examples]
        completions = self._generator.generate(prompts, self._sampling)
        return pandas.DataFrame({"completion": [completion.text for completion in completions]})


def _load_pyfunc(path: str) -> ServedModel:
    """The entry that MLflow calls with the folder of `served.json`."""
    text = (Path(path) / SERVED).read_text(encoding="utf-8")
    return ServedModel(Served.model_validate_json(text))
