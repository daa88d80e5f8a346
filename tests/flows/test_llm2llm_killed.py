"""kill -9, anywhere: the same command goes on from there, repeats no finished stage and ends with the same figures."""

import os
import signal
import time

import pytest

from tests.flows.loops import kill, rows_of, wait_until, without_places

ONE_LONG_TRAINING = {"iterations": 1, "training__max_steps": 30, "training__checkpoint_steps": 2}


@pytest.fixture(scope="module")
def long_undisturbed(new_loop, tmp_path_factory):
    return new_loop(tmp_path_factory.mktemp("undisturbed")).run(**ONE_LONG_TRAINING)


def _whole_checkpoints(loop):
    return list(loop.store.glob("work/sft/*/checkpoints/checkpoint-*/whole.json"))


def _training_steps(result) -> list[list[int]]:
    """The steps of every training that a run recorded, in the order of their first."""
    from mlflow import MlflowClient

    from tasks.core.settings import default_tracking_uri

    client = MlflowClient(tracking_uri=default_tracking_uri())
    experiment = client.get_run(result["mlflow_run_id"]).info.experiment_id
    flow_run = f"tags.`prefect.flow_run_id` = '{result['flow_run_id']}' and tags.stage = 'sft'"
    runs = client.search_runs([experiment], flow_run, order_by=["attributes.start_time"])
    return [[p.step for p in client.get_metric_history(run.info.run_id, "train/loss")] for run in runs]


@pytest.mark.slow
def test_killed_again_and_again_between_stages_it_ends_as_if_nothing_had_been(loop, finished):
    _, undisturbed = finished
    kills = 0
    while True:
        before = loop.manifests()
        process = loop.start()
        # Three more results each time; the last round has fewer left and ends by itself.
        while process.poll() is None and len(loop.manifests()) < len(before) + 3:
            time.sleep(0.002)
        if process.poll() is not None:
            break
        kill(process)
        kills += 1
        after = loop.manifests()
        assert {name: after[name] for name in before} == before
    result = loop.finish(loop.start())
    assert kills >= 3
    assert without_places(result) == without_places(undisturbed)
    assert rows_of(result) == rows_of(undisturbed)


def test_killed_in_the_middle_of_training_it_resumes_from_the_checkpoint(loop, long_undisturbed):
    process = loop.start(**ONE_LONG_TRAINING)
    wait_until(lambda: len(_whole_checkpoints(loop)) > 1, process)
    kill(process)
    assert "sft" not in loop.stages()
    result = loop.run(**ONE_LONG_TRAINING)
    (recorded,) = _training_steps(result)
    assert recorded[0] > 4
    assert recorded[-1] == 30
    assert without_places(result) == without_places(long_undisturbed)


@pytest.mark.slow
def test_a_training_process_that_is_killed_alone_is_started_again_and_resumes(loop, long_undisturbed):
    process = loop.start(**ONE_LONG_TRAINING)
    wait_until(lambda: len(_whole_checkpoints(loop)) > 1, process)
    (groups,) = loop.store.glob("work/sft/*/groups.txt")
    os.killpg(int(groups.read_text().split()[1]), signal.SIGKILL)
    result = loop.finish(process)
    assert "iteration 1: train: failed" in (loop.folder / "stderr.txt").read_text()
    assert without_places(result) == without_places(long_undisturbed)


@pytest.mark.slow
def test_two_runs_at_once_on_one_store_end_alike(loop, finished):
    _, undisturbed = finished
    first, second = loop.start(), loop.start()
    results = [loop.finish(first), loop.finish(second)]
    assert [without_places(result) for result in results] == [without_places(undisturbed)] * 2
