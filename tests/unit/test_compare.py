"""Runs compared: what is named, what differs, the figures by iteration with intervals, and an inert page."""

import json

import pytest

from flows.__main__ import main
from tasks.promotion.registry import ModelRegistry
from tests.mlflow_file import new_tracking
from tests.unit.report_html import parse
from tests.unit.test_promotion_registry import weights

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An MLflow with a loop of three iterations, a run of another method with one, and a registered version."""
    from mlflow.entities import Param

    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPWRIGHT_HOME", str(folder))
        tracking = new_tracking(folder)
        ids = {}
        for name, method, parameters, accuracy in (
            ("loop", "llm2llm", {"seed": "0", "training.epochs": "3"}, [0.25, 0.5, 0.75]),
            (SCRIPT, "perl", {"seed": "0", "training.epochs": SCRIPT, "ppo.steps": "60"}, [0.5]),
        ):
            ids[method] = run = tracking.start(name, tags={"method": method})
            tracking.client.log_batch(run, params=[Param(*pair) for pair in parameters.items()])
            for step, value in enumerate(accuracy, 1):
                ends = {"eval/accuracy_low": value - 0.125, "eval/accuracy_high": value + 0.125}
                tracking.metrics(run, {"eval/accuracy": value} | ends, step=step)
            tracking.finish(run)
        tracking.metrics(ids["perl"], {"objective/kl": 2.5})
        registry = ModelRegistry(tracking, "library")
        registry.create()
        registry.register(
            weights("one"),
            work="one",
            promoted=True,
            parent="",
            run_id=ids["perl"],
            source="model",
            tags={"method.run": ids["llm2llm"]},
        )
        yield tracking.uri, ids


@pytest.fixture
def compare(runs, tmp_path, capsys):
    def run(*named: str):
        page = tmp_path / "page.html"
        code = main(["compare", f"--tracking.uri={runs[0]}", f"--page={page}", *named])
        captured = capsys.readouterr()
        return code, captured.out, captured.err, page

    return run


def test_runs_of_two_methods_are_laid_side_by_side(compare, runs):
    ids = runs[1]
    code, out, told, page = compare("loop", ids["perl"])
    assert code == 0, told
    found = json.loads(out.splitlines()[-1])
    assert found["parameters"] == {"ppo.steps": ["", "60"], "training.epochs": ["3", SCRIPT]}
    first, second = found["runs"]
    assert (first["run_id"], first["method"], second["method"]) == (ids["llm2llm"], "llm2llm", "perl")
    assert first["curves"]["eval/accuracy"] == [[1, 0.25], [2, 0.5], [3, 0.75]]
    assert first["metrics"]["eval/accuracy"] == 0.75
    assert "0.75 (0.625 to 0.875)" in told
    assert "\x1b" not in told
    rows = parse(page.read_text()).rows
    assert ["eval/accuracy", "0.75 (0.625 to 0.875)", "0.5 (0.375 to 0.625)"] in rows
    assert ["objective/kl", "–", "2.5"] in rows
    assert [row for row in rows if row[0] in ("1", "2", "3")] == [
        ["1", "0.25", "0.5"],
        ["2", "0.5", "–"],
        ["3", "0.75", "–"],
    ]


def test_what_a_run_is_named_and_given_is_text_on_the_page(compare, runs):
    _, _, _, page = compare(runs[1]["llm2llm"], runs[1]["perl"])
    parsed = parse(page.read_text())
    shown = SCRIPT.replace("\x1b", "␛")
    assert shown in parsed.bdi
    assert not [tag for tag, _ in parsed.elements if tag in ("script", "iframe", "object")]
    images = [attributes for tag, attributes in parsed.elements if tag == "img"]
    assert len(images) == 1  # one figure has more than one step
    assert all(str(one["src"]).startswith("data:image/png") and "onerror" not in one for one in images)
    assert all(str(one["href"]).startswith("#") for tag, one in parsed.elements if tag == "a")


def test_a_registered_version_stands_for_the_run_that_trained_it(compare, runs):
    code, out, told, _ = compare("models:/library/1", runs[1]["perl"])
    assert code == 0, told
    assert json.loads(out)["runs"][0]["run_id"] == runs[1]["llm2llm"]
    assert "models:/library/1" in told


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["loop"], "RUN: 1 runs are named"),
        (["loop", "loop"], "RUN: 1 runs are named"),
        (["loop", "nothing"], "there is no run nothing"),
        (["loop", "0" * 32], "there is no run 000"),
        (["loop", "models:/library@champion"], "versions of library: 1"),
        (["loop", "models:/nobody/3"], "models:/nobody/3 does not exist"),
        (["loop", "models:/library/1", "--page=."], "page: . cannot be written: Is a directory"),
        (["loop", "models:/library/1", "--pages=x"], "unknown flag --pages"),
        (["loop", SCRIPT, "--page=/nowhere/at/all.html"], "page: there is no folder /nowhere/at"),
    ],
)
def test_a_mistake_is_one_message(compare, named, message):
    code, _, told, page = compare(*named)
    assert (code, message in told, "Traceback" in told) == (2, True, False), told
    assert not page.exists()
