"""The flow `instruct` by its command, with a teacher behind a real server that answers as a test scripts it."""

import json
from pathlib import Path

import pytest

from tests.flows.asking import Command
from tests.scripted_server import ScriptedServer
from tests.unit.test_instruct_writing import SEEDS, write


@pytest.fixture(scope="module")
def teacher():
    with ScriptedServer(write) as server:
        yield server


@pytest.fixture
def command(tmp_path, teacher, prefect_server, capsys):
    """The command in a folder of its own."""
    lines = (json.dumps({"instruction": row.input, "response": row.target}) for row in SEEDS)
    (tmp_path / "seeds.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "half.jsonl").write_text('{"instruction": "Name a bird."}\n')

    settings = {
        "data.seeds": tmp_path / "seeds.jsonl",
        "writing.rows": 6,
        "map.on": "false",
    }
    return Command("instruct", teacher, tmp_path, settings, capsys)


def test_seeds_become_chats_and_a_second_run_asks_nobody(command, teacher):
    code, result, said = command()
    assert (code, result["flow"], result["status"], result["stopped"]) == (0, "instruct", "completed", "")
    chats = [json.loads(line) for line in Path(result["places"]["chats"]).read_text().splitlines()]
    assert len(chats) == result["metrics"]["data/kept"] == 6
    assert {tuple(message["role"] for message in chat["messages"]) for chat in chats} == {
        ("user", "assistant")
    }
    assert sum(figures["data/kept"] for figures in result["iterations"]) == 6
    assert "6 of 6 rows" in said
    operations = result["operations"]
    assert all(one["written"] == one["kept"] + sum(one["rejected"].values()) for one in operations)
    assert sum(one["rejected"].get("surplus", 0) for one in operations) > 0  # more were written than wanted
    before = len(teacher.requests)
    _, again, _ = command()
    assert len(teacher.requests) == before
    assert (again["metrics"], again["iterations"]) == (result["metrics"], result["iterations"])


def test_the_report_has_a_map_and_a_student_that_was_tested_before_and_after(command, tmp_path, tiny_model):
    (tmp_path / "test.jsonl").write_text(
        "".join(
            json.dumps({"instruction": f"Sing {n} songs.", "answer": "la <b>la</b>"}) + "\n" for n in range(4)
        )
    )
    settings = {
        "map__on": "true",
        "data__test": tmp_path / "test.jsonl",
        "data__test_target": "answer",
        "student__on": "true",
        "student__model__model": tiny_model,
        "student__training__max_steps": 2,
        "student__evaluation__max_new_tokens": 4,
    }
    code, result, _ = command(**settings)
    assert code == 0
    figures = result["metrics"]
    assert (figures["train/steps"], result["model"]["uri"]) == (2, result["places"]["model"])
    assert figures["eval/gain"] == pytest.approx(figures["eval/accuracy"] - figures["eval/accuracy_before"])
    assert figures["eval/logprob"] != figures["eval/logprob_before"]
    assert figures["instruct/clusters"] == 1 + (6 + len(SEEDS)) // 8 - 1
    page = Path(result["places"]["report"])
    assert "la &lt;b&gt;la&lt;/b&gt;" in page.read_text()
    assert "<b>" not in page.read_text()
    assert (page.parent / "map.png").read_bytes().startswith(b"\x89PNG")
    assert (page.parent / "coverage.csv").read_text().startswith("group,rows,")


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"data__seeds": ""}, "data.seeds", "no rows are named"),
        ({"data__seeds": "half.jsonl"}, "data.target", "its columns are instruction"),
        ({"writing__mix__self_instruct": 0, "writing__mix__evol": 0}, "writing.mix", "above 0"),
        ({"writing__mix__backtranslation": 1}, "data.texts", "name a file"),
        ({"writing__budget__money": 1}, "writing.budget.money", "input_price"),
        ({"student__on": "true"}, "data.test", "rows to test on"),
        ({"writing__languages": '["xx"]'}, "writing.languages", "no language"),
        ({"map__on": "true", "encoder__model": "nowhere/at-all"}, "encoder.model", "nowhere"),
        ({"writing__rows": 0}, "writing.rows", "greater than or equal to 1"),
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
