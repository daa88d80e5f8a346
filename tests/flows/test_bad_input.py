"""Mistakes end the command before anything is loaded: exit code 2, one message with field and mend, no traceback."""

import json
import subprocess
import sys

import pytest

from flows.__main__ import main
from tests.flows.loops import TRAIN, write_jsonl

GOOD = '{"text": "play jazz", "label": "music"}\n'


@pytest.fixture
def refused(loop, capsys):
    """Runs a command that has to be refused; what it says."""

    def run(**changes):
        code = main(["llm2llm", *loop.flags(**changes)])
        captured = capsys.readouterr()
        assert (code, captured.out) == (2, "")
        assert "Traceback" not in captured.err
        assert not list(loop.store.glob("*/*")), "nothing may be computed"
        return captured.err

    return run


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["data.train", "is empty"]),
        (b"\n \n", ["data.train", "is empty"]),
        (GOOD.encode() + b'{"text": "half', ["data.train", "line 2"]),
        (b'{"message": "a", "label": "b"}\n', ["data.input", "text", "message"]),
        (b"\xff\xfe{}", ["data.train", "is not UTF-8"]),
        (b'{"text": "", "label": "music"}\n', ["data.train", "line 1", "empty"]),
        (b'{"text": "a", "label": null}\n', ["data.train", "line 1"]),
        (b"[1, 2]\n", ["data.train", "line 1", "instead of an object"]),
    ],
)
def test_training_data_that_cannot_be_used(loop, refused, content, parts):
    (loop.folder / "train.jsonl").write_bytes(content)
    message = refused()
    assert [part for part in parts if part not in message] == []


def test_a_label_that_only_the_test_set_has(loop, refused):
    write_jsonl(loop.folder / "test.jsonl", [("buy milk", "shopping")])
    message = refused()
    assert ("data.test" in message, "shopping" in message, "music, weather" in message) == (True, True, True)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"data__train": "nowhere/train.jsonl"}, ["data.train", "does not exist"]),
        ({"data__target": "lable"}, ["data.", "lable", "label"]),
        ({"data__seed_rows": 9}, ["data.seed_rows", "8"]),
        ({"data__problem": "clasification"}, ["data.problem", "did you mean classification"]),
        ({"iteration": 3}, ["--iteration", "--iterations"]),
        ({"iterations": 0}, ["iterations", "greater than or equal to 1"]),
        ({"student__model": "/nowhere/model"}, ["student.model", "/nowhere/model"]),
        ({"student__model": "someone/else"}, ["student.model", "HF_HUB_OFFLINE"]),
        (
            {"teacher__engine__endpoint__url": "http://127.0.0.1:9/v1"},
            ["teacher.engine.endpoint", "cannot be reached"],
        ),
        ({"teacher__engine__endpoint__model": "gpt-9"}, ["teacher.engine.endpoint", "gpt-9", "scripted"]),
        ({"training__select": "best"}, ["training.select", "data.validation"]),
        ({"training__method": "qlora"}, ["training.method", "bitsandbytes"]),
        ({"store": "/dev/null/store"}, ["store", "cannot be written to"]),
        ({"tracking__uri": "http://127.0.0.1:9"}, ["tracking.uri", "does not answer"]),
    ],
)
def test_a_setting_that_cannot_be_followed(refused, changes, parts):
    message = refused(**changes)
    assert [part for part in parts if part not in message] == []


def test_a_flow_that_does_not_exist(capsys):
    assert main(["llm3llm"]) == 2
    assert "llm2llm" in capsys.readouterr().err


def test_no_model_library_is_loaded_before_a_mistake_is_told(loop):
    (loop.folder / "train.jsonl").write_text("")
    program = (
        "import sys, json, flows.__main__ as program\n"
        "code = program.main(sys.argv[1:])\n"
        "print(json.dumps([code, [name for name in ('torch', 'transformers', 'trl') if name in sys.modules]]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, "llm2llm", *loop.flags()], capture_output=True, text=True, check=True
    )
    assert json.loads(ran.stdout) == [2, []]
    assert ran.stderr.strip().startswith("data.train: ")


def run_well(loop, capsys, **changes):
    code = main(["llm2llm", *loop.flags(**changes)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out.splitlines()[-1])


def test_one_row_is_enough_for_a_loop(loop, capsys):
    write_jsonl(loop.folder / "train.jsonl", TRAIN[:1])
    write_jsonl(loop.folder / "test.jsonl", TRAIN[:1])
    result = run_well(loop, capsys)
    assert result["iterations"][0]["data/train_rows"] == 1
    assert result["status"] == "completed"


def test_rows_of_50_000_characters_are_trained_on_and_answered(loop, capsys):
    rows = [("rain and snow " * 3600, "weather"), *TRAIN]
    assert len(rows[0][0]) > 50_000
    write_jsonl(loop.folder / "train.jsonl", rows)
    result = run_well(loop, capsys, iterations=1)
    assert result["iterations"][0]["data/train_rows"] == 9
