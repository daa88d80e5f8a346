"""ReST by its command: what it prints, keeps and records, how it stops, and that running it again does no work."""

import json
from pathlib import Path

import pytest

from tasks.core.examples import read_examples
from tasks.core.references import DatasetRef
from tests.flows.loops import TEST, TRAIN, kill, rows_of, wait_until, without_places
from tests.flows.sampling_loops import new_sampling_loop
from tests.unit.small_grow import silent_model

SHARED_NAMES = {
    "eval/accuracy",
    "eval/exact",
    "data/train_rows",
    "data/wrong",
    "data/generated",
    "data/kept",
    "train/loss",
    "train/steps",
}
REWARD_NAMES = {
    "reward/mean",
    "reward/kept",
    "reward/validation",
    "reward/test",
    "reward/best",
    "samples/distinct_2",
}


@pytest.fixture(scope="module")
def finished(tiny_model, prefect_server, tmp_path_factory):
    loop = new_sampling_loop(tmp_path_factory.mktemp("rest"), tiny_model, prefect_server)
    return loop, loop.command()


@pytest.fixture
def loop(tiny_model, prefect_server, tmp_path):
    return new_sampling_loop(tmp_path / "loop", tiny_model, prefect_server)


def brevity(text: str) -> float:
    return max(0.0, 1.0 - len(text) / 40)


def test_the_last_line_is_the_result_with_the_names_every_method_has(finished):
    _, result = finished
    assert (result["flow"], result["status"], result["stopped"]) == ("rest", "completed", "")
    assert [(SHARED_NAMES | REWARD_NAMES) - figures.keys() for figures in result["iterations"]] == [
        set(),
        set(),
    ]
    assert set(result["baselines"]) == {"warm start"}
    assert Path(result["places"]["report"]).is_file()
    assert all(figures["data/generated"] == 4 * len(TRAIN) for figures in result["iterations"])


def test_the_last_step_trains_on_rows_strictly_above_its_threshold(finished):
    _, result = finished
    rows = rows_of(result)
    assert all(row.reward > 0.2 for row in rows)
    samples = [row for row in rows if row.completion is not None]
    assert samples
    assert all(row.reward == pytest.approx(brevity(row.completion)) for row in samples)
    originals = [row for row in rows if row.completion is None]
    assert {(row.input, row.target) for row in originals} == set(TRAIN)  # `music` and `weather` are short
    assert all(row.parent in {original.id for original in originals} for row in samples)
    assert result["metrics"]["data/kept"] == len(rows)


def test_all_samples_of_an_iteration_are_stored_once_with_their_rewards(finished):
    loop, _ = finished
    gathered = list(loop.store.glob("gather/*/*/samples.jsonl"))
    assert len(gathered) == 2
    for path in gathered:
        rows = [row for row in _rows(path) if row.completion is not None]
        assert len({row.id for row in rows}) == len(rows)
        assert all(row.reward == pytest.approx(brevity(row.completion)) for row in rows)


def _rows(path: Path):
    from hashlib import sha256

    content = path.read_bytes()
    reference = DatasetRef(uri=str(path), digest=sha256(content).hexdigest(), rows=content.count(b"\n"))
    return read_examples(reference)


def test_running_it_again_gives_the_same_and_computes_nothing(finished):
    loop, result = finished
    before = loop.manifests()
    again = loop.run()
    assert without_places(again) == without_places(result)
    assert loop.manifests() == before


def test_more_samples_reuse_those_that_exist(finished):
    loop, _ = finished
    before = {name: time for name, time in loop.manifests().items() if name.startswith("grow/")}
    loop.run(grow__samples=6, iterations=1)
    after = {name: time for name, time in loop.manifests().items() if name.startswith("grow/")}
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2  # one more block of samples for each of the two blocks of prompts
    loop.run(grow__samples=5, iterations=1)
    fewer = {name for name in loop.manifests() if name.startswith("grow/")}
    assert len(fewer) == len(after) + 2  # the fifth sample alone


@pytest.mark.slow
def test_a_run_killed_while_shards_are_drawn_at_once_goes_on_and_ends_as_one_by_one(loop, finished):
    _, undisturbed = finished
    process = loop.start(grow__at_once=2)
    wait_until(lambda: "grow" in loop.stages(), process)
    kill(process)
    grown = {name: time for name, time in loop.manifests().items() if name.startswith("grow/")}
    result = loop.finish(loop.start(grow__at_once=2))
    assert grown.items() <= loop.manifests().items()
    assert without_places(result) == without_places(undisturbed)
    assert rows_of(result) == rows_of(undisturbed)


def test_a_threshold_that_nothing_passes_ends_the_loop_with_the_policy_before_it(loop):
    result = loop.run(improve__levels="[0.0,0.99]", improve__mix_data="no", iterations=1)
    assert result["stopped"] == ""  # the step before it was taken
    assert result["metrics"]["improve/steps_taken"] == 1
    alone = loop.run(improve__levels="[0.99]", improve__mix_data="no")
    assert alone["stopped"] == "no sample passes reward above 0.99"
    assert (len(alone["iterations"]), alone["metrics"]["data/kept"]) == (1, 0)
    assert alone["metrics"]["eval/accuracy"] == alone["baselines"]["warm start"]["eval/accuracy"]


@pytest.mark.parametrize(
    ("mixed", "stop", "stopped", "kept", "steps"),
    [
        ("no", False, "no sample passes reward above 0", 0, 0),
        ("yes", False, "", 8, 2),
        # Nothing is worth more than what it says already: by the length of an answer, nothing at all.
        ("yes", True, "the held-out reward did not rise at reward above 0", 0, 0),
    ],
)
def test_a_policy_that_says_nothing_ends_with_a_report_that_says_so(
    loop, tiny_model, mixed, stop, stopped, kept, steps
):
    silent = silent_model(loop.folder / "silent", tiny_model)
    flags = {"policy__model": silent.uri, "warm_start": False, "iterations": 1, "grow__samples": 2}
    result = loop.run(**flags, improve__mix_data=mixed, improve__stop_on_reward=stop)
    figures = result["metrics"]
    assert (figures["grow/samples"], figures["grow/empty"], figures["data/wrong"]) == (0, 2 * 8, 8)
    assert (result["stopped"], figures["data/kept"], figures["improve/steps_taken"]) == (stopped, kept, steps)
    page = Path(result["places"]["report"]).read_text()
    assert "Not one sample came of the policy in iteration 1" in page
    if not steps:  # the policy that it set out from stands
        start = result["baselines"]["base model"]
        assert (figures["reward/test"], start["reward/test"]) == (1.0, 1.0)
        assert result["model"]["base"] is None


def test_answers_on_which_the_verifier_fails_are_told_in_the_report(loop):
    (loop.folder / "touchy.py").write_text(
        "def touchy(prompt, completion, example):\n"
        "    if len(completion) % 3 == 1:\n"
        "        raise ValueError('<b>odd</b>')\n"
        "    return 0.5\n"
    )
    result = loop.run(reward__function="touchy:touchy", iterations=1, improve__levels="[0.0]")
    assert result["metrics"]["reward/failed"] > 0
    page = Path(result["places"]["report"]).read_text()
    assert "The verifier failed on" in page
    assert "ValueError: &lt;b&gt;odd&lt;/b&gt; (touchy.py, line 3)" in page


def test_rest_em_starts_from_the_base_and_keeps_right_answers_alone(loop):
    result = loop.run(
        method="rest-em",
        iterations=1,
        improve__levels="[0.3]",
        improve__most_per_prompt=2,
        equal_steps=True,
        evaluation__confidence=0.8,
    )
    rows = rows_of(result)
    assert all(row.completion is not None and row.reward > 0.3 for row in rows)
    counts = {row.parent: sum(other.parent == row.parent for other in rows) for row in rows}
    assert max(counts.values()) <= 2
    fair = result["baselines"]["seed rows only, equal steps"]
    assert fair["train/steps"] == result["metrics"]["train/steps"] == 2  # not those of the warm start
    page = Path(result["places"]["report"]).read_text()
    assert "paired bootstrap (80 %)" in page


def test_samples_can_answer_other_questions(loop):
    from tests.flows.loops import write_jsonl

    others = [("one more question", "music"), ("and another one", "weather")]
    path = write_jsonl(loop.folder / "prompts.jsonl", [*others, TEST[0]])
    result = loop.run(prompts=path, iterations=1, improve__levels="[0.0]", warm_start_epochs=3)
    assert result["baselines"]["warm start"]["train/steps"] == 6  # three times the 8 rows, in batches of 4
    rows = rows_of(result)
    assert {row.input for row in rows if row.completion is not None} <= {text for text, _ in others}
    assert {row.input for row in rows if row.completion is None} == {text for text, _ in TRAIN}
    assert result["metrics"]["data/generated"] == 8  # nothing is asked that is tested on
    page = Path(result["places"]["report"]).read_text()
    assert "1 of 3 prompts were left out: test or validation rows ask the same." in page


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"improve__levels": "[0.9,0.2]"}, "improve.levels"),
        ({"reward__function": "verifiers:missing"}, "reward.function"),
        ({"prompts": "nowhere.jsonl"}, "\nprompts: "),
        ({"training__batch_size": 1, "launch__processes": 2}, "launch.processes"),
        ({"preferences__train": "nowhere.jsonl"}, "preferences.train: nowhere.jsonl is named"),
        ({"policy__model": "nowhere/at-all"}, "policy.model"),
        ({"evaluation__engine__compressor__model": "nowhere/at-all"}, "evaluation.engine.compressor.model"),
        ({"grow__engine__compressor__model": "nowhere/at-all"}, "grow.engine.compressor.model"),
        ({"training__max_length": 12}, "grow.max_new_tokens: samples may have 12 tokens"),
    ],
)
def test_mistakes_end_before_anything_is_loaded(loop, changes, field):
    process = loop.start(**changes)
    process.communicate(timeout=120)
    assert process.returncode == 2
    printed = (loop.folder / "stderr.txt").read_text()
    assert field in printed
    assert "Traceback" not in printed
    assert not loop.manifests()


def test_two_filters_lie_side_by_side_with_the_names_that_every_loop_has(finished, tmp_path, capsys):
    from flows.__main__ import main

    loop, first = finished
    second = loop.run(improve__by="top_n", improve__levels="[2.0,1.0]", iterations=1)
    capsys.readouterr()
    page = tmp_path / "page.html"
    assert main(["compare", f"--page={page}", first["mlflow_run_id"], second["mlflow_run_id"]]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["parameters"]["improve.by"] == ["threshold", "top_n"]
    assert found["parameters"]["iterations"] == ["2", "1"]
    for run, result in zip(found["runs"], (first, second), strict=True):
        assert run["curves"].keys() >= SHARED_NAMES | REWARD_NAMES
        values = [[number, figures["reward/test"]] for number, figures in enumerate(result["iterations"], 1)]
        assert run["curves"]["reward/test"] == values
    assert "reward/test" in page.read_text()
