"""A training whose machine is lost goes on from the checkpoint that its store has, and ends as if nothing had been."""

import shutil

import pytest

from tasks.core.store import Store
from tests.flows.test_perl_killed import CONFIG, STAGE, finish, inputs_of, kill_at
from tests.s3_server import s3_server

pytestmark = pytest.mark.slow


def test_a_lost_machine_costs_the_steps_after_the_last_checkpoint(tmp_path, tiny_ref, monkeypatch):
    inputs = inputs_of(tmp_path / "inputs", tiny_ref)
    undisturbed, _ = finish(CONFIG, inputs, Store(str(tmp_path / "undisturbed")))
    monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "home"))
    with s3_server("lost"):
        store = Store("s3://lost/store")
        folder = f"{STAGE.name}/{STAGE.key(CONFIG, inputs)}/checkpoints"

        def mirrored():
            return any(name.startswith(f"{folder}/2-") for name in store.listing(folder))

        work = kill_at("update", CONFIG, inputs, store, ready=mirrored)
        assert [path.name for path in (work / "checkpoints").glob("step-*")] == ["step-2"]
        shutil.rmtree(tmp_path / "home")
        monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path / "another-home"))
        result, steps = finish(CONFIG, inputs, store)
        assert steps == [3, 4, 5]
        assert result.model.digest == undisturbed.model.digest
        assert store.listing(folder) == {}
