"""The flow `compress` from texts to a compressor that `compress-text` uses, with a scripted teacher."""

import io
import json
import sqlite3
import sys
from pathlib import Path

import pytest

from flows.__main__ import main
from tasks.compress.texts import SHARD
from tests.scripted_server import ScriptedServer, completion, refusal
from tests.tiny_encoder import build_tiny_encoder

FILLERS = {"the", "of", "is", "a", "in", "and", "please", "now"}
TEXTS = [
    f"The door of room {n} is open now and a {thing} stands in the hall, please take the {thing}."
    for n, thing in enumerate(["chair", "table", "lamp", "globe", "ladder", "clock"] * 6)
]


def delete_fillers(request):
    """A teacher that obeys: every filler goes."""
    text = request["messages"][-1]["content"]
    return completion(" ".join(word for word in text.split() if word.lower() not in FILLERS))


@pytest.fixture(scope="module")
def places(tmp_path_factory, prefect_server, tiny_model):
    folder = tmp_path_factory.mktemp("compress")
    rows = [json.dumps({"text": text, "label": "odd" if n % 2 else "even"}) for n, text in enumerate(TEXTS)]
    (folder / "texts.jsonl").write_text("\n".join(rows))
    build_tiny_encoder(folder / "encoder", head=False, spread=0.1)
    return folder, tiny_model


def arguments(places, url, **more):
    folder, model = places
    settings = {
        "texts.train": folder / "texts.jsonl",
        "teacher.engine.engine": "openai",
        "teacher.engine.endpoint.url": url,
        "encoder.model": folder / "encoder",
        "training.learning_rate": 0.01,
        "training.epochs": 6,
        "data.train": folder / "texts.jsonl",
        "data.test": folder / "texts.jsonl",
        "data.input": "text",
        "data.target": "label",
        "answers.model": model,
        "measured.rates": "[0.5]",
        "measured.arms": '["compressor", "random"]',
        "store": folder / "store",
        "tracking.uri": f"sqlite:///{folder}/mlflow.db",
    } | more
    return ["compress", *(f"--{name}={value}" for name, value in settings.items())]


def test_the_whole_flow_its_rerun_and_the_command(places, capsys, monkeypatch):
    folder, _ = places

    def dies(request):
        return delete_fillers(request) if len(dying.requests) <= SHARD else refusal(500, "gone")

    with ScriptedServer(dies) as dying:
        one_by_one = {"teacher.engine.endpoint.attempts": 1, "teacher.engine.endpoint.concurrency": 1}
        assert main(arguments(places, dying.url, **one_by_one, retries=0)) == 1
    assert "answered none of 4 prompts" in capsys.readouterr().err
    with ScriptedServer(delete_fillers) as teacher:
        code = main(arguments(places, teacher.url))
        captured = capsys.readouterr()
        assert code == 0, captured.err
        result = json.loads(captured.out.splitlines()[-1])
        asked = len(teacher.requests)
        assert main(arguments(places, teacher.url)) == 0
        assert (
            len(teacher.requests) == asked == 4
        )  # what was answered before is not asked again, and nothing by the rerun
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["model"]["digest"] == result["model"]["digest"]
    figures = result["metrics"]
    assert figures["data/kept"] == figures["data/generated"] == 36
    assert figures["words/f1_at_rate"] > figures["words/kept_share"] + 0.1  # better than a random choice
    assert [row["inputs"] for row in result["arms"]] == [
        "whole prompts",
        "compressor at 0.5",
        "random at 0.5",
    ]
    assert all(0.4 < row["kept"] <= 0.5 for row in result["arms"][1:])
    assert figures["compression/tokens_saved"] > 0
    assert "Held-out pairs" in Path(result["places"]["report"]).read_text()
    with sqlite3.connect(folder / "mlflow.db") as database:
        stages = [row[0] for row in database.execute("select value from tags where key = 'stage'")]
    assert {"iteration", "compressor_training"} <= set(stages)

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXTS[0].encode())))
    assert main(["compress-text", "--rate=0.5", f"--store={folder}/store"]) == 0
    captured = capsys.readouterr()
    assert "door" in captured.out
    assert 0.3 < len(captured.out) / len(TEXTS[0]) < 0.7
    assert "tokens kept" in captured.err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"texts.train": ""}, "texts.train: no texts are named"),
        ({"texts.column": "body"}, "texts.column: "),
        ({"encoder.model": "/nowhere"}, "encoder.model: there is no /nowhere"),
        ({"teacher.engine.endpoint.url": "http://127.0.0.1:9/v1"}, "teacher.engine.endpoint.url: "),
        ({"measurement.compression.rate": "2"}, "measurement.compression.rate: "),
        ({"training.method": "qlora"}, "training.method: qlora is for decoders"),
        ({"answers.engine.engine": "openai", "answers.fine_tune": "true"}, "answers.fine_tune: "),
    ],
)
def test_mistakes_end_before_anything_is_loaded(places, capsys, setting, message):
    with ScriptedServer(delete_fillers) as teacher:
        served = {"answers.engine.endpoint.url": teacher.url}
        assert main(arguments(places, teacher.url, **served, **setting)) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
