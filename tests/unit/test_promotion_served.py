"""What is registered can be loaded by MLflow, and answers word for word as the evaluation had it answered."""

import pandas
import pytest

from tasks import evaluate
from tasks.compress.weights import located
from tasks.core.compression.config import CompressorConfig
from tasks.core.examples import make_example, read_records, write_rows
from tasks.core.generators.load import EngineConfig
from tasks.evaluate import EvaluationConfig, EvaluationInputs
from tasks.problems.base import ProblemConfig
from tasks.promotion.loading import write_served
from tasks.promotion.served import as_evaluated
from tests.tiny_encoder import TEXTS, build_tiny_encoder

CLASSES = ProblemConfig(name="classification", labels=("music", "weather"))
ROWS = [make_example(text, "music") for text in ("play jazz", "rain?", "sun " * 30)]
CHOICES = [
    make_example("Which one?", "b", ("a", "b")),
    make_example("And now?", "one", ("one", "two", "three")),
]


@pytest.mark.parametrize(
    ("problem", "rows", "evaluation"),
    [
        (CLASSES, ROWS, EvaluationConfig()),
        (CLASSES, ROWS, EvaluationConfig(restricted=False, max_new_tokens=5, temperature=1.0, seed=3)),
        (ProblemConfig(name="multiple_choice"), CHOICES, EvaluationConfig()),
    ],
)
def test_mlflow_loads_what_was_written_and_it_answers_as_evaluated(
    tiny_ref, tmp_path, problem, rows, evaluation
):
    import mlflow

    inputs = EvaluationInputs(
        model=tiny_ref, splits={"test": write_rows(tmp_path / "test.jsonl", rows)}, problem=problem
    )
    result = evaluate.run(evaluation, inputs, tmp_path / "out", lambda event: None)
    expected = [record["completion"] for record in read_records(result.splits["test"].predictions)]
    write_served(tmp_path / "served", as_evaluated(tiny_ref, problem, evaluation))
    frame = pandas.DataFrame({"input": [row.input for row in rows]})
    if problem.name == "multiple_choice":
        frame["choices"] = [row.choices for row in rows]
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "served"))
    assert list(loaded.predict(frame)["completion"]) == expected


def test_it_reads_prompts_through_the_compressor_that_it_was_evaluated_with(tiny_ref, tmp_path):
    import mlflow

    folder = build_tiny_encoder(tmp_path / "encoder")
    compressor = CompressorConfig(model=str(folder), rate=0.2, last=True, shortest=1)
    engine = located(EngineConfig(compressor=compressor), "evaluation.engine")
    problem, config = ProblemConfig(name="exact_match"), EvaluationConfig(engine=engine, max_new_tokens=8)
    rows = [make_example(" ".join([*TEXTS, str(number)]), "x") for number in range(3)]
    test = write_rows(tmp_path / "test.jsonl", rows)
    inputs = EvaluationInputs(model=tiny_ref, splits={"test": test}, problem=problem)
    result = evaluate.run(config, inputs, tmp_path / "out", lambda event: None)
    expected = [record["completion"] for record in read_records(result.splits["test"].predictions)]
    answers = []
    for number, asked in enumerate((config, EvaluationConfig(max_new_tokens=8))):
        write_served(tmp_path / f"served-{number}", as_evaluated(tiny_ref, problem, asked))
        loaded = mlflow.pyfunc.load_model(str(tmp_path / f"served-{number}"))
        frame = pandas.DataFrame({"input": [row.input for row in rows]})
        answers.append(list(loaded.predict(frame)["completion"]))
    assert answers[0] == expected != answers[1]


def test_no_weights_are_copied_and_nothing_is_pickled(tiny_ref, tmp_path):
    write_served(tmp_path / "served", as_evaluated(tiny_ref, CLASSES, EvaluationConfig()))
    files = [path for path in (tmp_path / "served").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20_000
    assert {path.suffix for path in files} <= {"", ".json", ".yaml", ".txt"}


def test_weights_that_changed_since_they_were_registered_are_refused(tiny_ref, tmp_path):
    import mlflow

    from tasks.core.errors import DamagedArtifact

    changed = tiny_ref.model_copy(update={"digest": "0" * 64})
    write_served(tmp_path / "served", as_evaluated(changed, CLASSES, EvaluationConfig()))
    with pytest.raises(DamagedArtifact, match="not those that were written"):
        mlflow.pyfunc.load_model(str(tmp_path / "served"))
