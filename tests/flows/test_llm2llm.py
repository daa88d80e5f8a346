"""LLM2LLM by its command: what it prints, keeps and records, and that running it again does no work."""

import json
import shutil
from pathlib import Path

import pytest
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL

from tasks.core.digests import folder_digest
from tasks.core.settings import home
from tests.flows.conftest import KEY
from tests.flows.loops import TRAIN, rows_of, without_places


@pytest.fixture(scope="module")
def client():
    from mlflow import MlflowClient

    from tasks.core.settings import default_tracking_uri

    return MlflowClient(tracking_uri=default_tracking_uri())


def test_the_last_line_is_the_result(finished):
    _, result = finished
    assert (result["flow"], result["status"], result["stopped"]) == ("llm2llm", "completed", "")
    assert result["metrics"].items() >= result["iterations"][-1].items()
    names = {"eval/accuracy", "data/train_rows", "data/wrong", "data/generated", "data/kept", "train/loss"}
    assert [names - figures.keys() for figures in result["iterations"]] == [set(), set()]
    assert folder_digest(Path(result["model"]["uri"])) == result["model"]["digest"]
    assert Path(result["places"]["report"]).is_file()


def test_the_second_iteration_trains_on_the_seed_rows_and_one_new_row_for_each_wrong_one(finished):
    _, result = finished
    first, second = result["iterations"]
    rows = rows_of(result)
    seeds = [row for row in rows if row.origin == "seed"]
    new = [row for row in rows if row.origin == "synthetic"]
    assert sorted((row.input, row.target) for row in seeds) == sorted(TRAIN)
    assert first["data/train_rows"] == 8
    assert first["data/kept"] == first["data/wrong"] == len(new) > 0
    assert second["data/train_rows"] == len(rows)
    parents = {row.id: row for row in seeds}
    assert all(parents[row.parent].target == row.target and row.step == 1 for row in new)


def test_the_key_of_the_teacher_is_sent_to_it_and_kept_nowhere(finished, teacher, prefect_server):
    loop, result = finished
    assert {request.headers.get("Authorization") for request in teacher.requests} >= {f"Bearer {KEY}"}
    assert KEY not in json.dumps(result)
    database = Path(PREFECT_SERVER_DATABASE_CONNECTION_URL.value().partition(":///")[2])
    # Store, records and terminal; MLflow's database and artifacts; Prefect's database with logs, parameters, artifacts.
    places = [loop.folder, home(), *database.parent.glob(f"{database.name}*")]
    files = [
        file
        for place in places
        for file in ([place] if place.is_file() else place.rglob("*"))
        if file.is_file()
    ]
    assert {"stderr.txt", "mlflow.db", database.name, "manifest.json"} <= {file.name for file in files}
    assert [str(file) for file in files if KEY.encode() in file.read_bytes()] == []


def test_running_it_again_gives_the_same_and_computes_nothing(finished, teacher):
    loop, result = finished
    before, asked = loop.manifests(), len(teacher.requests)
    again = loop.run()
    assert without_places(again) == without_places(result)
    assert again["flow_run_id"] != result["flow_run_id"]
    assert (loop.manifests(), len(teacher.requests)) == (before, asked)


def test_a_store_that_was_moved_is_gone_on_with(finished, new_loop, tmp_path):
    loop, result = finished
    moved = new_loop(tmp_path / "moved")
    shutil.copytree(loop.store, moved.store)
    before = moved.manifests()
    again = moved.run()
    assert without_places(again) == without_places(result)
    assert Path(again["model"]["uri"]).is_relative_to(moved.store)
    # The report names places, and is made anew for another one.
    assert [name for name in moved.manifests().keys() - before.keys() if not name.startswith("report/")] == []


@pytest.mark.slow
def test_a_damaged_result_is_named_and_it_alone_is_computed_again(finished, new_loop, tmp_path):
    loop, result = finished
    damaged = new_loop(tmp_path / "damaged")
    shutil.copytree(loop.store, damaged.store)
    model = Path(result["model"]["uri"])
    weights = damaged.store / model.relative_to(loop.store) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    before = damaged.manifests()
    again = damaged.command()
    assert f"damaged artifact {damaged.store}" in (damaged.folder / "stderr.txt").read_text()
    assert without_places(again) == without_places(result)
    after = damaged.manifests()
    changed = [name for name in after if after[name] != before.get(name) and not name.startswith("report/")]
    assert changed == [f"sft/{model.parts[-3]}"]


def test_mlflow_holds_a_run_per_flow_iteration_and_training(finished, client):
    _, result = finished
    run = client.get_run(result["mlflow_run_id"])

    def children(run_id):
        filter_string = f"tags.`mlflow.parentRunId` = '{run_id}'"
        found = client.search_runs([run.info.experiment_id], filter_string)
        return sorted(found, key=lambda child: child.info.run_name)

    iterations = children(run.info.run_id)
    trainings = [children(iteration.info.run_id) for iteration in iterations]
    assert run.data.tags["method"] == "llm2llm"
    assert run.data.tags["prefect.flow_run_id"] == result["flow_run_id"]
    assert [child.info.run_name for child in iterations] == ["iteration 1", "iteration 2"]
    assert [[child.data.tags["stage"] for child in group] for group in trainings] == [["sft"], ["sft"]]
    family = [run, *iterations, *(child for group in trainings for child in group)]
    assert {member.info.status for member in family} == {"FINISHED"}
    accuracies = [figures["eval/accuracy"] for figures in result["iterations"]]
    assert [child.data.metrics["eval/accuracy"] for child in iterations] == accuracies
    history = client.get_metric_history(run.info.run_id, "eval/accuracy")
    assert [(point.step, point.value) for point in history] == list(enumerate(accuracies, start=1))
    losses = client.get_metric_history(trainings[0][0].info.run_id, "train/loss")
    assert [point.step for point in losses] == [1, 2, 3]


def test_mlflow_holds_parameters_data_sets_adapter_and_report(finished, client):
    _, result = finished
    run = client.get_run(result["mlflow_run_id"])
    assert run.data.params["training.adapter.rank"] == "16"
    contexts = [entry.tags[0].value for entry in run.inputs.dataset_inputs]
    assert contexts == ["test"]
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["report"]
    tagged = client.search_runs(
        [run.info.experiment_id], f"tags.`model.digest` = '{result['model']['digest']}'"
    )
    artifacts = client.list_artifacts(tagged[0].info.run_id, "adapter")
    assert "adapter/adapter_model.safetensors" in [item.path for item in artifacts]
