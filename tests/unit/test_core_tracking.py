"""Tracking in MLflow (a SQLite file): the tree of runs, figures per iteration, parameters, data sets, artifacts."""

import json
import math
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from pydantic import Field, create_model

from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.core.references import DatasetRef
from tasks.core.served_artifacts import folder_of
from tasks.core.tracking import Tracking, TrackingConfig, flatten
from tasks.report.show import mlflow_page


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    """One database for all tests of this module: it takes seconds to make."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPWRIGHT_HOME", str(folder))
        yield Tracking(TrackingConfig(uri=f"sqlite:///{folder}/deep/mlflow.db", experiment="tests"))


@pytest.fixture(scope="module")
def client(tracking):
    return MlflowClient(tracking_uri=tracking.uri)


def test_runs_form_a_tree(tracking, client):
    parent = tracking.start("flow", tags={"method": "llm2llm"})
    child = tracking.start("iteration 1", parent=parent, tags={"iteration": "1"})
    tracking.finish(child)
    tracking.finish(parent, "FAILED")
    found = client.get_run(child)
    assert found.data.tags["mlflow.parentRunId"] == parent
    assert (found.data.tags["iteration"], found.info.status) == ("1", "FINISHED")
    assert (client.get_run(parent).info.status, client.get_run(parent).info.run_name) == ("FAILED", "flow")
    assert "mlflow.parentRunId" not in client.get_run(parent).data.tags


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(143), "KILLED")],
)
def test_what_ended_the_work_decides_how_its_run_ends(tracking, client, error, status):
    run = tracking.start("flow")
    tracking.fail(run, error)
    assert client.get_run(run).info.status == status


def test_artifacts_of_an_experiment_that_a_server_made_lie_where_the_server_keeps_them(
    tracking, client, tmp_path
):
    client.create_experiment("served", artifact_location="mlflow-artifacts:/7")
    served = Tracking(TrackingConfig(uri=tracking.uri, experiment="served"))
    run = served.start("flow")
    (tmp_path / "table.csv").write_text("a,b")
    served.artifact(run, tmp_path / "table.csv", "tables")
    folder = Path(tracking.uri.removeprefix("sqlite:///")).parent / "mlartifacts"
    assert (folder / "7" / run / "artifacts" / "tables" / "table.csv").read_text() == "a,b"
    assert [one.path for one in client.list_artifacts(run, "tables")] == ["tables/table.csv"]
    with pytest.raises(ValueError, match="leads out of"):
        folder_of("mlflow-artifacts:/7/../../elsewhere", tracking.uri)


def test_runs_are_found_by_a_condition_over_more_than_one_page(tracking, client, monkeypatch):
    runs = {tracking.start("flow", tags={"batch": "one"}) for _ in range(5)}
    tracking.start("flow", tags={"batch": "two"})
    search = client.search_runs
    tracking_client = tracking.client._client
    monkeypatch.setattr(
        tracking_client, "search_runs", lambda *given, **named: search(*given, **named, max_results=2)
    )
    found = tracking.search("tags.batch = 'one'")
    assert len(found) == 5
    assert {run.info.run_id for run in found} == runs
    assert tracking.search("tags.batch = 'three'") == []


def test_the_figures_of_iterations_make_a_curve(tracking, client):
    run = tracking.start("flow")
    for step, accuracy in ((1, 0.25), (2, 0.5)):
        tracking.metrics(run, {"eval/accuracy": accuracy}, step=step)
    history = client.get_metric_history(run, "eval/accuracy")
    assert [(point.step, point.value) for point in history] == [(1, 0.25), (2, 0.5)]


def test_figures_that_are_not_finite_are_left_out(tracking, client):
    run = tracking.start("flow")
    tracking.metrics(run, {"good": 1.0, "nan": math.nan, "inf": math.inf})
    tracking.metrics(run, {"nan": math.nan})
    tracking.metrics(run, {})
    assert client.get_run(run).data.metrics == {"good": 1.0}


def test_more_parameters_than_a_call_takes_are_all_recorded(tracking, client):
    fields = {f"field_{number}": (int, number) for number in range(230)}
    run = tracking.start("flow")
    tracking.params(run, create_model("Many", __base__=Config, **fields)())
    assert client.get_run(run).data.params == {f"field_{number}": str(number) for number in range(230)}


def test_nested_parameters_have_dotted_names_and_long_ones_are_cut(tracking, client):
    class Inner(Config):
        text: str = "x" * 7000

    class Outer(Config):
        inner: Inner = Inner()
        labels: tuple[str, ...] = ("a", "b")
        share: float = Field(0.5)

    run = tracking.start("flow")
    tracking.params(run, Outer())
    params = client.get_run(run).data.params
    assert (params["inner.text"], params["labels"], params["share"]) == ("x" * 6000, "['a', 'b']", "0.5")


def test_data_sets_are_inputs_of_their_run(tracking, client):
    run = tracking.start("flow")
    ref = DatasetRef(uri="s3://bucket/train.jsonl", digest="a" * 64, rows=20)
    tracking.dataset(run, ref, "llm2llm-train", "train")
    (entry,) = client.get_run(run).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("llm2llm-train", "a" * 36)
    assert json.loads(entry.dataset.source) == {"uri": "s3://bucket/train.jsonl"}
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "train")]


def test_files_folders_and_tables_are_artifacts(tracking, client, tmp_path):
    run = tracking.start("flow")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights.bin").write_bytes(b"w")
    (tmp_path / "report.html").write_text("<p>")
    tracking.artifact(run, tmp_path / "adapter", "adapter")
    tracking.artifact(run, tmp_path / "report.html")
    tracking.table(run, [{"text": "größe", "rows": 1}, {"rows": 2, "more": True}], "rows.json")
    names = {item.path for item in client.list_artifacts(run)}
    assert names == {"adapter", "report.html", "rows.json"}
    assert [item.path for item in client.list_artifacts(run, "adapter")] == ["adapter/weights.bin"]
    stored = json.loads((tmp_path / client.download_artifacts(run, "rows.json", str(tmp_path))).read_text())
    assert stored["columns"] == ["text", "rows", "more"]
    assert stored["data"] == [["größe", 1, None], [None, 2, True]]


def test_a_second_tracking_finds_the_same_experiment(tracking):
    again = Tracking(TrackingConfig(uri=tracking.uri, experiment="tests"))
    assert again.experiment_id == tracking.experiment_id


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///{}/folder",
        "sqlite:///{}/file/mlflow.db",
        "sqlite:///{}/file",
        "http://127.0.0.1:{port}",
        "http://nowhere.invalid/mlflow",
        "ftp://nowhere",
    ],
)
def test_a_place_that_does_not_answer_is_refused_at_once(tmp_path, uri):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("no database " * 100)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match="does not answer") as caught:
        Tracking(TrackingConfig(uri=uri.format(tmp_path, port=port)))
    assert caught.value.field == "tracking.uri"


def test_a_password_in_an_address_is_shown_nowhere(tracking, client, tmp_path):
    """Messages, the parameters of a run, and the command that opens MLflow."""
    for uri in ("http://ann:hunter2@127.0.0.1:9", "ftp://ann:hunter2@nowhere"):
        with pytest.raises(UserError, match="does not answer") as caught:
            Tracking(TrackingConfig(uri=uri))
        assert "hunter2" not in str(caught.value)
    run_id = tracking.start("run")
    tracking.params(run_id, TrackingConfig(uri="postgresql://ann:hunter2@db/mlflow"))
    assert client.get_run(run_id).data.params["uri"] == "postgresql://…@db/mlflow"
    run = SimpleNamespace(tracking=SimpleNamespace(uri="postgresql://ann:hunter2@db/mlflow"))
    assert mlflow_page(run).endswith("--backend-store-uri 'postgresql://…@db/mlflow'")


def test_an_experiment_that_was_deleted_is_refused_with_the_mend(tracking, client):
    config = TrackingConfig(uri=tracking.uri, experiment="short-lived")
    client.delete_experiment(Tracking(config).experiment_id)
    with pytest.raises(UserError, match="was deleted") as caught:
        Tracking(config)
    assert caught.value.field == "tracking.experiment"


def test_runs_that_start_at_once_share_a_new_database(tmp_path):
    program = (
        "import sys; from tasks.core.tracking import *;"
        "print(Tracking(TrackingConfig(uri=sys.argv[1])).start('flow'))"
    )
    command = [sys.executable, "-c", program, f"sqlite:///{tmp_path}/mlflow.db"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] != "" for process in started] == [True, True]
    assert [process.returncode for process in started] == [0, 0]


def test_nested_values_are_flattened_and_lists_are_leaves():
    assert flatten({"a": {"b": {"c": 1}}, "d": [1, {"e": 2}], "f": {}}) == {"a.b.c": 1, "d": [1, {"e": 2}]}


def test_artifacts_lie_where_a_new_experiment_says_and_an_old_one_is_not_moved(tracking, client, tmp_path):
    there = tmp_path / "artifacts"
    config = TrackingConfig(uri=tracking.uri, experiment="elsewhere", artifacts=str(there))
    run = Tracking(config).start("flow")
    (tmp_path / "note.txt").write_text("x")
    Tracking(config).artifact(run, tmp_path / "note.txt")
    assert [path.name for path in there.rglob("*") if path.is_file()] == ["note.txt"]
    with pytest.raises(UserError, match="keeps its artifacts at") as caught:
        Tracking(config.model_copy(update={"artifacts": "s3://bucket/mlflow"}))
    assert (caught.value.field, str(there) in str(caught.value)) == ("tracking.artifacts", True)
