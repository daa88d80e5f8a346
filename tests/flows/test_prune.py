"""Pruning beside Prefect: a rerun computes what was removed, and a run under way keeps what it has."""

import json
import shutil

import pytest

from flows.__main__ import main
from tests.flows.test_mapped_stages import LOUD, Mapped
from tests.mlflow_file import new_mlflow

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def mapped(tmp_path):
    new_mlflow(tmp_path)
    return Mapped(tmp_path)


@pytest.fixture
def prune(mapped, capsys):
    def run(*flags: str) -> dict:
        config = mapped.config()
        given = [
            f"--store={config.store}",
            f"--tracking.uri={config.tracking.uri}",
            "--age_days=0",
            "--recent_runs=0",
        ]
        assert main(["prune", *given, *flags]) == 0
        return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))

    return run


def test_what_was_removed_is_computed_again_even_where_prefect_still_has_its_record(mapped, prune):
    assert mapped.run() == LOUD
    computed = mapped.diary.read_text()
    assert len(prune()["removable"]) == 5
    assert mapped.run() == LOUD
    assert mapped.diary.read_text() == computed  # looking removed nothing

    records = mapped.folder / "store" / "records"
    shutil.copytree(records, mapped.folder / "kept")
    assert prune("--remove")["removed"] == 5
    assert list(records.iterdir()) == []
    assert mapped.run() == LOUD
    assert mapped.diary.read_text().count("end") == 10

    prune("--remove")
    shutil.copytree(mapped.folder / "kept", records, dirs_exist_ok=True)
    assert mapped.run() == LOUD
    assert mapped.diary.read_text().count("end") == 15


def test_a_run_under_way_keeps_what_it_has_and_what_it_found(mapped, prune):
    assert mapped.run(["one", "two"]) == ["ONE", "TWO"]
    during: list[dict] = []
    assert mapped.run(each=lambda: during.append(prune("--remove"))) == LOUD
    assert [one["removed"] for one in during] == [0] * 5
    assert during[-1]["kept"] == {"run under way": 5}
    assert mapped.diary.read_text().count("end") == 5
    assert prune("--remove")["removed"] == 5
