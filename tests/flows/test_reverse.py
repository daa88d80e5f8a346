"""Reverse training as a flow: its configuration with a tiny model, its faults, and the copies inside other loops."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flows.__main__ import main
from flows.llm2llm import LLM2LLMConfig
from flows.reverse_probe import ReverseProbeConfig, asked
from tasks.core.config import identity
from tasks.core.examples import make_example, read_examples, write_rows
from tasks.core.generators.endpoint import EndpointConfig
from tasks.core.generators.load import EngineConfig
from tasks.core.references import DatasetRef
from tasks.evaluate import EvaluationConfig
from tasks.problems.base import ProblemConfig
from tasks.retrain.method import read_method
from tasks.reversal.config import ReversalConfig
from tasks.sft.config import TrainingConfig
from tasks.student import Student
from tests.cached_run import CachedRun
from tests.scripted_server import ScriptedServer

CONFIG = "--config=deployments/configs/reverse-facts.yaml"
MARKUP = "<script>alert(1)</script>"


def write_table(folder: Path) -> Path:
    rows = [
        {
            "subject": f"Vaskel {number}",
            "object": f"Zorwyn {number}",
            "relation": MARKUP,
            "forward": "{subject} is the capital of {object}.",
            "backward": "The capital of {object} is {subject}.",
        }
        for number in range(8)
    ]
    path = folder / "facts.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def finished(prefect_server, tiny_model, tmp_path_factory):
    """The flow's command, run once, and what it printed."""
    folder = tmp_path_factory.mktemp("reverse")
    corpus = folder / "corpus.csv"
    corpus.write_text('question,answer,names\nWhere is Vaskel 3?,In Zorwyn 3.,"[""Zorwyn 3""]"\n')
    flags = [
        f"--facts.table={write_table(folder)}",
        "--facts.taught=",
        "--facts.both_ways=0.25",
        f"--corpus.rows={corpus}",
        "--corpus.question=question",
        "--corpus.text=answer",
        "--corpus.entities=names",
        f"--student.model={tiny_model}",
        f"--store={folder}/store",
        "--training.max_steps=4",
        "--evaluation.max_new_tokens=4",
    ]
    return folder, flags, printed(["reverse", CONFIG, *flags])


def printed(arguments: list[str]) -> dict:
    from contextlib import redirect_stdout
    from io import StringIO

    out = StringIO()
    with redirect_stdout(out):
        assert main(arguments) == 0
    return json.loads(out.getvalue().splitlines()[-1])


def rows_at(path: str) -> list:
    from tasks.core.digests import path_digest

    return read_examples(DatasetRef(uri=path, digest=path_digest(Path(path)), rows=0))


def test_the_flow_trains_on_rows_and_copies_and_asks_every_model_both_ways(finished):
    _, _, result = finished
    rows = rows_at(result["places"]["data"])
    copies = {row.target if not row.input else row.completion for row in rows if row.origin == "synthetic"}
    # 8 facts, 2 of them in both directions, and a question
    assert (len(rows), len(copies)) == (22, 11)
    assert {"[REV] Zorwyn 5 of capital the is Vaskel 5.", "Zorwyn 3 In."} <= copies
    assert result["metrics"]["data/train_rows"] == 22
    baselines = result["baselines"]
    assert list(baselines) == ["before", "data-matched", "compute-matched"]
    assert [baselines[name]["train/steps"] for name in baselines] == [0, 2, 4]
    assert {"direction/gap", "direction/forward", "direction/backward"} <= set(result["metrics"])
    assert {(row["words"], row["asked backward"]) for row in result["by_words"]} == {("2", 6)}


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)


def test_the_report_has_the_gap_as_its_headline_and_escapes_what_stands_in_the_data(finished):
    _, _, result = finished
    text = Path(result["places"]["report"]).read_text(encoding="utf-8")
    assert result["headline"].startswith("The direction gap is ")
    assert result["headline"] in text
    page = Page()
    page.feed(text)
    assert "script" not in page.tags
    assert "&lt;script&gt;" in text


def test_a_rerun_computes_nothing_and_the_probe_asks_the_trained_model_the_same(finished, capsys):
    folder, flags, result = finished
    stored = sorted((folder / "store").glob("*/*/manifest.json"))
    times = {path: path.stat().st_mtime_ns for path in stored}
    again = printed(["reverse", CONFIG, *flags])
    assert again["metrics"] == result["metrics"]
    assert {path: path.stat().st_mtime_ns for path in (folder / "store").glob("*/*/manifest.json")} == times
    probe = [flag for flag in flags if flag.split(".")[0] in ("--facts", "--evaluation", "--student")]
    found = printed(["reverse-probe", *probe, "--facts.both_ways=0.25", f"--store={folder}/store"])
    before = result["baselines"]["before"]
    assert {name: found["metrics"][name] for name in before if name.startswith("direction/")} == {
        name: value for name, value in before.items() if name.startswith("direction/")
    }


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--facts.table="], "facts.table: no rows are named"),
        (
            ["--reversal.by=entity", "--reversal.entities.by=spacy"],
            "reversal.entities.model: spacy needs a model",
        ),
        (["--corpus.rows=nowhere.jsonl"], "corpus.rows: nowhere.jsonl does not exist"),
        (
            ["--reversal.longest_segment=0"],
            "reversal.longest_segment: Input should be greater than or equal to 1",
        ),
        (["--reversal.by=backwards"], "reversal.by: Input should be"),
    ],
)
def test_mistakes_end_before_a_model_is_loaded(flags, words, capsys):
    assert main(["reverse", CONFIG, *flags]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("flow", ["reverse", "reverse-probe"])
def test_an_engine_that_is_not_installed_is_refused_before_a_model_is_loaded(
    flow, tiny_model, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("tasks.core.generators.load.find_spec", lambda name: None)
    places = [f"--facts.table={write_table(tmp_path)}", f"--student.model={tiny_model}"]
    assert main([flow, *places, f"--store={tmp_path}/store", "--evaluation.engine.engine=vllm"]) == 2
    assert "evaluation.engine.engine: vLLM is not installed" in capsys.readouterr().err
    assert not list((tmp_path / "store").glob("*/*")), "nothing may be computed"


def test_the_students_of_other_loops_train_on_copies_when_they_are_asked_for(tiny_ref, tmp_path):
    assert LLM2LLMConfig().reversal.by == "none"
    assert (
        read_method(LLM2LLMConfig, "", {"reversal.by": "word"}).reversal.by == "word"
    )  # as retrain passes it on
    rows = write_rows(
        tmp_path / "rows.jsonl", [make_example(f"What is {n}?", f"a number {n}") for n in range(3)]
    )
    training = TrainingConfig(max_steps=1, batch_size=2)
    run, problem = CachedRun(tmp_path), ProblemConfig(name="exact_match")
    student = Student(
        run, tiny_ref, problem, training, EvaluationConfig(), reversal=ReversalConfig(by="word")
    )
    assert student.train(rows).rows == 6


def test_what_is_cached_of_a_server_hangs_on_the_model_that_it_serves():
    found = []
    for name in ("one", "another"):
        with ScriptedServer(models=[name]) as server:
            engine = EngineConfig(engine="openai", endpoint=EndpointConfig(url=server.url))
            found.append(asked(ReverseProbeConfig(evaluation=EvaluationConfig(engine=engine))))
    assert [config.engine.endpoint.model for config in found] == ["one", "another"]
    assert identity(found[0]) != identity(found[1])
