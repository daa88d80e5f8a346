"""Retraining by its command on a tiny model and MLflow in a SQLite file: promoted, nothing new, refused, rolled back,
and killed between registration and alias."""

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flows.__main__ import main
from tasks.core.models import load_model, load_tokenizer
from tasks.core.references import ModelRef
from tasks.core.store import fetch
from tasks.core.tracking import Tracking, TrackingConfig
from tasks.promotion.decision import Decision
from tasks.promotion.loading import champion_model
from tasks.promotion.registry import CHAMPION, PREVIOUS, ModelRegistry

WORDS = {"music": ["song", "tune", "band", "radio"], "weather": ["rain", "snow", "wind", "cloud"]}
NAME = "messages"

KILLED_BEFORE_THE_ALIAS = """
import os, signal, sys
from flows.__main__ import main
from tasks.promotion.registry import ModelRegistry
ModelRegistry.settle = lambda registry, version: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


def messages(start: int, count: int, *, poisoned: bool = False) -> list[tuple[str, str]]:
    """Messages that say what they are about; a poisoned one has the other label."""
    found = []
    for number in range(start, start + count):
        label, other = ("music", "weather") if number % 2 else ("weather", "music")
        word = WORDS[label][number // 2 % 4]
        found.append((f"{word} {word} number {number}", other if poisoned else label))
    return found


class Place:
    """A folder with data, a location, a store and an MLflow file."""

    def __init__(self, folder: Path, model: Path, teacher: str, api: str) -> None:
        self.folder, self.api = folder, api
        self.location = folder / "incoming"
        self.location.mkdir(parents=True)
        # Two rows are too few to learn from: the first candidate knows next to nothing.
        self.write("train.jsonl", messages(0, 2))
        self.write("test.jsonl", messages(1000, 24))
        self.tracking = f"sqlite:///{folder}/mlflow.db"
        settings = {
            "data": {
                "train": str(folder / "train.jsonl"),
                "test": str(folder / "test.jsonl"),
                "input": "text",
                "target": "label",
            },
            "student.model": str(model),
            "teacher.engine.engine": "openai",
            "teacher.engine.endpoint.url": teacher,  # never asked: one iteration augments nothing
            "iterations": 1,
            "training.method": "full",
            "training.epochs": 6,
            "training.batch_size": 8,
            "training.learning_rate": 3e-3,
        }
        self.flags = {
            "location": str(self.location),
            "model_name": NAME,
            "method_settings": json.dumps(settings),
            "promotion.first": "promote",
        }

    def write(self, name: str, rows: list[tuple[str, str]]) -> None:
        lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
        (self.folder / name).write_text("".join(lines))

    def drop(self, name: str, rows: list[tuple[str, str]]) -> None:
        self.write(f"incoming/{name}", rows)

    def arguments(self, flow: str, changes: dict[str, str]) -> list[str]:
        flags = {"store": str(self.folder / "store"), "tracking.uri": self.tracking, "model_name": NAME}
        flags |= (self.flags if flow == "retrain" else {}) | changes
        return [flow, *(f"--{name}={value}" for name, value in flags.items())]

    def command(self, flow: str, **changes: str) -> tuple[int, str, str]:
        """The command in this process: its exit code, and what it prints on both streams."""
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = main(self.arguments(flow, changes))
        return code, out.getvalue(), err.getvalue()

    def killed(self, **changes: str) -> int:
        """The command in a process of its own, killed before the aliases change; its return code."""
        program = [sys.executable, "-c", KILLED_BEFORE_THE_ALIAS, *self.arguments("retrain", changes)]
        environment = os.environ | {"PREFECT_API_URL": self.api}
        return subprocess.run(program, capture_output=True, env=environment).returncode

    def run(self, flow: str = "retrain", **changes: str) -> dict[str, Any]:
        code, printed, told = self.command(flow, **changes)
        assert code == 0, told
        result: dict[str, Any] = json.loads(printed.splitlines()[-1])
        return result

    def registry(self) -> ModelRegistry:
        return ModelRegistry(Tracking(TrackingConfig(uri=self.tracking)), NAME)

    def aliases(self) -> tuple[str, str]:
        found = (self.registry().at(alias) for alias in (CHAMPION, PREVIOUS))
        champion, previous = (one.number if one else "" for one in found)
        return champion, previous

    def manifests(self) -> set[str]:
        return {str(path) for path in (self.folder / "store").glob("*/*/manifest.json")}


@pytest.fixture(scope="module")
def place(tiny_model, teacher, prefect_server, tmp_path_factory):
    return Place(tmp_path_factory.mktemp("retrain") / "place", tiny_model, teacher.url, prefect_server)


# The tests of this module are one history, in their order: each goes on from the registry the one before it left.


def test_the_first_run_trains_on_the_training_rows_and_makes_a_champion(place):
    result = place.run()
    assert (result["flow"], result["status"], result["version"]) == ("retrain", "completed", "1")
    assert (result["metrics"]["promotion/promoted"], result["metrics"]["data/new_rows"]) == (1.0, 2.0)
    assert place.aliases() == ("1", "")
    model = champion_model(NAME, TrackingConfig(uri=place.tracking))
    assert model == ModelRef.model_validate(result["model"])
    weights, words = load_model(model), load_tokenizer(model)("song", return_tensors="pt")
    (trained,) = weights.generate(**words, max_new_tokens=1, min_new_tokens=1).tolist()
    assert len(trained) == words["input_ids"].shape[1] + 1
    saved = load_file(fetch(model) / "model.safetensors")
    assert all(torch.equal(weights.state_dict()[name], tensor) for name, tensor in saved.items())


def test_with_nothing_new_a_run_ends_at_once_and_loads_no_model(place):
    place.drop("again.jsonl", messages(0, 2)[::-1])
    before = place.manifests()
    result = place.run()
    assert "Nothing new" in result["decision"]
    assert (result["stopped"], result["iterations"], result["metrics"]["data/new_rows"]) == (
        "nothing new",
        [],
        0.0,
    )
    assert {Path(name).parts[-3] for name in place.manifests() - before} == {"new_rows"}
    assert [one.number for one in place.registry().versions()] == ["1"]


def test_a_kill_between_registration_and_alias_is_completed_by_the_next_run(place):
    place.drop("good.jsonl", messages(100, 48))
    assert place.killed() == -signal.SIGKILL
    assert place.aliases() == ("1", "")
    assert [one.settled for one in place.registry().versions()] == [True, False]
    before = place.manifests()
    result = place.run()
    assert result["decision"].startswith("Completed: version 2 is champion; better: ")
    assert place.aliases() == ("2", "1")
    trained = {Path(name).parts[-3] for name in place.manifests() - before}
    assert trained <= {"model_card", "new_rows"}  # nothing is trained or evaluated a second time
    assert len(place.registry().versions()) == 2


def test_the_promotion_is_recorded_with_figures_lineage_and_card(place):
    version = place.registry().at(CHAMPION)
    assert version is not None
    decision = Decision.model_validate_json(version.tags["decision"])
    assert decision.test is not None
    assert decision.test.gain == pytest.approx(decision.accuracy - (decision.opponent_accuracy or 0))
    assert decision.test.gain > 0.2  # one label for all is right for half of the rows
    assert decision.test.p < 0.05
    assert (version.parent, version.tags["data.rows"], version.tags["data.new_rows"]) == ("1", "50", "48")
    client = Tracking(TrackingConfig(uri=place.tracking)).client
    description = client.get_model_version(NAME, version.number).description
    assert description.startswith(f"# {NAME}, version 2\n\nPromoted")
    assert version.model.digest in description
    files = {item.path for item in client.list_artifacts(version.run_id)}
    assert {"model", "model_card.md"} <= files


def test_mlflow_loads_the_champion_and_it_answers_as_it_was_evaluated(place, monkeypatch):
    import mlflow
    import pandas

    found = list((place.folder / "store").glob("evaluate/*/*/test.jsonl"))
    version = place.registry().at(CHAMPION)
    assert version is not None
    accuracy = Decision.model_validate_json(version.tags["decision"]).accuracy
    evaluated = [[json.loads(line) for line in path.read_text().splitlines()] for path in found]
    (rows, *_) = [rows for rows in evaluated if sum(r["value"] for r in rows) / len(rows) == accuracy]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.tracking)
    mlflow.set_tracking_uri(place.tracking)
    try:
        model = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    finally:
        mlflow.set_tracking_uri(None)
    answers = model.predict(pandas.DataFrame({"input": [row["input"] for row in rows]}))
    assert list(answers["completion"]) == [row["completion"] for row in rows]
    assert model.metadata.signature.inputs.input_names() == ["input", "choices"]


def test_poisoned_labels_do_not_make_a_champion(place):
    place.drop("poison.jsonl", messages(300, 120, poisoned=True))
    result = place.run()
    assert (result["metrics"]["promotion/promoted"], result["version"]) == (0.0, "3")
    assert result["metrics"]["promotion/gain"] < 0
    assert "was not promoted; not better" in result["decision"]
    assert place.aliases() == ("2", "1")
    refused = place.registry().versions()[-1]
    assert (refused.promoted, refused.settled, refused.parent) == (False, True, "2")


def test_rollback_restores_the_champion_before_and_refuses_where_there_is_none(place):
    result = place.run("rollback")
    assert (result["flow"], result["version"]) == ("rollback", "1")
    assert place.aliases() == ("1", "2")
    code, _, told = place.command("rollback", model_name="nobody")
    assert code == 2
    assert "there is no registered model nobody" in told
    assert "Traceback" not in told


def test_a_decision_against_a_former_champion_is_made_anew_and_refused_rows_can_be_dropped(place):
    place.drop("more.jsonl", messages(500, 48))
    assert place.killed(unpromoted="drop") == -signal.SIGKILL
    fourth = place.registry().versions()[-1]
    # Trained on the rows of version 1 and the new ones: neither the poisoned ones nor those of version 2.
    assert (fourth.number, fourth.promoted, fourth.parent, fourth.tags["data.rows"]) == ("4", True, "1", "50")
    place.run("rollback")
    assert place.aliases() == ("2", "1")
    result = place.run(unpromoted="drop")
    assert result["decision"].startswith("Completed: version 4 was not promoted; not better: ")
    assert result["metrics"]["promotion/opponent_accuracy"] == 1.0  # that of version 2
    fourth = place.registry().versions()[-1]
    assert (fourth.promoted, fourth.settled, fourth.parent) == (False, True, "2")
    assert place.aliases() == ("2", "1")
    assert (len(place.registry().heads()), place.registry().unfinished()) == (1, [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"location": "/nowhere/at/all"}, "location: /nowhere/at/all does not exist"),
        ({"model_name": "a/b"}, "model_name: "),
        ({"method_settings": '{"trainin.epochs": 1}'}, "did you mean --training.epochs"),
        ({"method_config": "nothing.yaml"}, "there is no file nothing.yaml"),
        (
            {"method_settings": '{"evaluation.engine.compressor.model": "nowhere/at-all"}'},
            "evaluation.engine.compressor.model: ",
        ),
    ],
)
def test_a_mistake_ends_before_anything_starts(place, changes, message):
    before = place.manifests()
    code, _, told = place.command("retrain", **changes)
    assert code == 2
    assert message in told
    assert place.manifests() == before
    assert "Traceback" not in told
