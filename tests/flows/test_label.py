"""The flow `label` by its command, with a teacher behind a real server that answers as a test scripts it."""

import json
import os
from pathlib import Path

import pytest

from tests.flows.asking import Command
from tests.s3_server import s3_server
from tests.scripted_server import ScriptedServer
from tests.unit.test_label_rounds import LABELS, honest, parity


@pytest.fixture(scope="module")
def teacher():
    with ScriptedServer(honest) as server:
        yield server


@pytest.fixture
def command(tmp_path, teacher, prefect_server, capsys):
    """The command in a folder of its own."""
    rows = [{"text": f"number {number}", "label": parity(number)} for number in range(60)]
    for name, part in (("examples", rows[:24]), ("rows", [{"text": row["text"]} for row in rows[24:]])):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in part))
    (tmp_path / "empty.jsonl").write_text("")

    settings = {
        "data.rows": tmp_path / "rows.jsonl",
        "data.input": "text",
        "data.labels": json.dumps(LABELS),
        "teacher.engine.endpoint.backoff_s": 0.01,
    }
    return Command("label", teacher, tmp_path, settings, capsys)


def test_rows_without_labels_get_them_and_a_second_run_asks_nobody(command, teacher, tmp_path):
    from mlflow import MlflowClient

    code, result, said = command()
    assert (code, result["flow"], result["status"]) == (0, "label", "completed")
    labels = [json.loads(line) for line in Path(result["places"]["labels"]).read_text().splitlines()]
    assert [(row["input"], row["answer"]) for row in labels] == [
        (f"number {n}", parity(n)) for n in range(24, 60)
    ]
    assert [figures["label/asked"] for figures in result["iterations"]] == [
        36,
        36,
    ]  # settled after two rounds
    assert result["metrics"]["label/calls"] == 4
    assert "36 of 36 rows labelled" in said
    run = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(result["mlflow_run_id"])
    assert run.data.metrics["label/calls_saved"] == pytest.approx(1 - 4 / 36)
    assert run.data.tags["method"] == "label"
    before = len(teacher.requests)
    _, again, _ = command()
    assert len(teacher.requests) == before
    assert (again["metrics"], again["iterations"]) == (result["metrics"], result["iterations"])


def test_the_store_s_address_and_keys_come_from_a_block_of_prefect_s(command, teacher, tmp_path, monkeypatch):
    from prefect.blocks.system import Secret

    with s3_server("labels") as s3:
        names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        Secret(value={name: os.environ[name] for name in names}).save("label-store", overwrite=True)
        monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "home"))
        for name in names:
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        code, result, said = command(store="s3://labels/store", credentials="secret/label-store")
        assert code == 0, said
        assert result["places"]["labels"].startswith("s3://labels/store/")
        assert s3.list_objects_v2(Bucket="labels", Prefix="store/records/")["KeyCount"] > 0
        before = len(teacher.requests)
        monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "another machine"))
        code, again, said = command(store="s3://labels/store", credentials="secret/label-store")
        assert (code, len(teacher.requests), again["metrics"]) == (0, before, result["metrics"]), said
        code, _, said = command(store="s3://labels/store", credentials="secret/of-nobody")
        assert (code, "credentials: Prefect has no block secret/of-nobody" in said) == (2, True)


@pytest.mark.slow
def test_settings_are_tried_out_on_labelled_rows_and_the_cheapest_that_is_good_is_taken(command, tmp_path):
    examples = {"data__examples": tmp_path / "examples.jsonl", "data__target": "label", "data__labels": None}
    code, result, said = command(
        **examples, data__demonstrations=4, auto__on="true", auto__batch_sizes="[2,10]"
    )
    assert code == 0, said
    tried = [(one["batch_size"], one["rounds"], one["accuracy"]) for one in result["trials"]]
    assert tried == [(1, 1, 1.0), *((size, rounds, 1.0) for size in (2, 10) for rounds in (1, 3, 5))]
    # The server bills ten tokens a row however they are asked, so one round is cheapest, and fewest calls decide.
    assert result["metrics"]["label/calls"] == 4
    assert "in batches of 10, 1 rounds" in said


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"data__rows": ""}, "data.rows", "no rows are named"),
        ({"data__rows": "empty.jsonl"}, "data.rows", "is empty"),
        ({"data__labels": None}, "data.labels", "--data.labels"),
        ({"data__input": "words"}, "data.input", "its columns are text"),
        ({"data__target": "label"}, "data.target", "no column 'label'"),
        ({"data__examples": "examples.jsonl"}, "data.target", "--data.target=label"),
        ({"data__demonstrations": 3}, "data.demonstrations", "--data.examples"),
        ({"auto__on": "true"}, "data.examples", "--auto.on=false"),
        ({"labelling__rounds": 4}, "labelling.rounds", "3 or 5"),
        (
            {"teacher__engine__endpoint__url": "http://127.0.0.1:9/v1"},
            "teacher.engine.endpoint",
            "127.0.0.1:9",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_asked(
    command, teacher, tmp_path, changes, field, words, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    command.refuses(changes, field, words)
