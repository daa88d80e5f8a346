"""A person's word on a promotion, on a real Prefect server: a run is suspended without a process, and started anew when
somebody answered in the form or by command, or when nobody did in time."""

import json
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from flows.__main__ import main
from flows.retrain import retrain
from tasks.core.references import ModelRef
from tasks.core.tracking import Tracking, TrackingConfig
from tasks.promotion.approval import ASKED, Question
from tasks.promotion.registry import CHAMPION, ModelRegistry
from tests.asking_again import PREFECT_CLIENT
from tests.flows.test_retrain import Place, messages
from tests.mlflow_file import new_mlflow, new_tracking
from tests.unit.test_promotion_promoting import registered


class Deployed:
    """`retrain` as a deployment whose runs are executed in this process, as a worker does it in another."""

    def __init__(self, place: Place, api: str) -> None:
        from prefect.client.orchestration import get_client

        self.place, self.api = place, api
        with get_client(sync_client=True) as client:
            flow = client.create_flow_from_name("retrain")
            self.id = client.create_deployment(flow_id=flow, name="approval")

    def submit(self, name: str, **approval: Any) -> str:
        """A run for a registered model of its own: its id."""
        settings = json.loads(self.place.flags["method_settings"])
        config = {
            "location": str(self.place.location),
            "model_name": name,
            "method_settings": settings,
            "store": str(self.place.folder / "store"),
            "tracking": {"uri": self.place.tracking},
            "promotion": {"approval": {"ask": True} | approval},
        }
        body = {"parameters": {"config": config}, "state": {"type": "SCHEDULED"}}
        return str(self.call("POST", f"/deployments/{self.id}/create_flow_run", body)["id"])

    def execute(self, run: str) -> Any:
        """The run's result; None when it was suspended."""
        from prefect.exceptions import Pause
        from prefect.flow_engine import load_flow_run, run_flow_sync

        flow_run = load_flow_run(UUID(run))
        try:
            return run_flow_sync(retrain, flow_run=flow_run, parameters=flow_run.parameters)
        except Pause:
            return None

    def state(self, run: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/flow_runs/{run}")["state"])

    def shown(self, run: str) -> str:
        """What stands above the form."""
        key = self.state(run)["state_details"]["run_input_keyset"]["description"]
        return str(self.call("GET", f"/flow_runs/{run}/input/{key}"))

    def answer(self, run: str, **filled_in: str) -> str:
        """Send the form: ACCEPT or REJECT."""
        return str(self.call("POST", f"/flow_runs/{run}/resume", {"run_input": filled_in})["status"])

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = PREFECT_CLIENT.request(method, f"{self.api}{path}", json=body)
        answer.raise_for_status()
        return answer.json()

    def registry(self, name: str) -> ModelRegistry:
        return ModelRegistry(Tracking(TrackingConfig(uri=self.place.tracking)), name)


@pytest.fixture(scope="module")
def deployed(tiny_model, teacher, prefect_server, tmp_path_factory):
    """Retraining that makes a candidate which is far better than the base model."""
    folder = tmp_path_factory.mktemp("approval")
    place = Place(folder / "place", tiny_model, teacher.url, prefect_server)
    new_mlflow(place.folder)
    place.write("train.jsonl", messages(0, 64))
    settings = json.loads(place.flags["method_settings"]) | {"training.epochs": 8}
    place.flags["method_settings"] = json.dumps(settings)
    del place.flags["promotion.first"]
    return Deployed(place, prefect_server)


def tags_of(deployed: Deployed, name: str) -> dict[str, str]:
    return dict(deployed.registry(name).versions()[-1].tags)


@pytest.mark.slow
def test_approved_in_the_form_the_run_goes_on_where_it_was(deployed):
    run = deployed.submit("formed")
    assert deployed.execute(run) is None
    assert (deployed.state(run)["name"], deployed.registry("formed").at(CHAMPION)) == ("Suspended", None)
    shown = deployed.shown(run)
    assert "formed" in shown
    assert "points against the base model on 24 rows" in shown
    assert "| asked | right | base model | candidate |" in shown
    client = deployed.registry("formed")._client
    first = deployed.registry("formed").versions()[-1].run_id
    assert client.get_run(first).info.status == "SCHEDULED"

    # Rows that arrive while it waits are another run's: this one trains nothing.
    deployed.place.drop("later.jsonl", messages(300, 8))
    before = deployed.place.manifests()
    assert deployed.answer(run, reason="but no answer") == "REJECT"
    assert deployed.answer(run, answer="approve", reason="<b>good</b>", by="Ann") == "ACCEPT"
    assert deployed.state(run)["name"] == "Resuming"
    result = deployed.execute(run)
    (deployed.place.location / "later.jsonl").unlink()

    assert (result.status, result.version) == ("completed", "1")
    assert result.decision.endswith("; approved by Ann: <b>good</b>")
    assert (len(result.iterations), result.metrics["promotion/promoted"]) == (1, 1.0)
    assert result.iterations[0]["eval/accuracy"] == result.metrics["eval/accuracy"]
    assert {name.split("/")[-3] for name in deployed.place.manifests() - before} == {"model_card"}
    champion = deployed.registry("formed").at(CHAMPION)
    assert champion is not None
    assert (champion.number, champion.run_id) == ("1", first)
    assert result.mlflow_run_id == first
    assert client.get_run(first).info.status == "FINISHED"
    tags = champion.tags
    assert (tags["approval"], tags["approval.by"], tags["approval.reason"]) == (
        "approved",
        "Ann",
        "<b>good</b>",
    )
    card = client.get_model_version("formed", "1").description
    assert "approved by Ann: &lt;b&gt;good&lt;/b&gt;" in card


@pytest.mark.slow
def test_rejected_in_the_form_the_run_records_it_with_the_reason_and_ends(deployed):
    run = deployed.submit("refused")
    assert deployed.execute(run) is None
    assert deployed.answer(run, answer="perhaps", reason="no such answer") == "REJECT"
    assert deployed.answer(run, answer="reject", reason="too <terse>", by="Cy") == "ACCEPT"
    result = deployed.execute(run)
    assert (result.status, result.metrics["promotion/promoted"]) == ("completed", 0.0)
    assert result.decision.startswith("Version 1 was not promoted; better: ")
    assert result.decision.endswith("; not approved by Cy: too <terse>")
    assert deployed.registry("refused").at(CHAMPION) is None
    assert deployed.registry("refused").unfinished() == []
    tags = tags_of(deployed, "refused")
    assert (tags["approval"], tags["approval.by"], tags["approval.reason"]) == (
        "rejected",
        "Cy",
        "too <terse>",
    )
    client = deployed.registry("refused")._client
    assert client.get_run(result.mlflow_run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_rejected_by_command_it_is_recorded_with_the_reason_and_the_run_ends(deployed, capsys):
    run = deployed.submit("commanded")
    assert deployed.execute(run) is None
    flags = ["--model_name=commanded", f"--tracking.uri={deployed.place.tracking}"]
    flags.append(f"--store={deployed.place.folder}/store")
    assert main(["approve", *flags]) == 0  # shows what is asked
    assert "Became right" in json.loads(capsys.readouterr().out.splitlines()[-1])["decision"]
    assert main(["approve", *flags, "--answer=reject"]) == 2
    assert "reason" in capsys.readouterr().err
    assert main(["approve", *flags, "--answer=reject", "--reason=too terse", "--by=Bo"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["decision"].startswith("Version 1 was not promoted; better: ")
    assert told["decision"].endswith("; not approved by Bo: too terse")
    assert main(["approve", *flags, "--answer=approve"]) == 2  # the first answer counts
    assert "no version of commanded waits for approval" in capsys.readouterr().err

    assert deployed.state(run)["name"] == "Resuming"
    result = deployed.execute(run)
    assert (result.decision, result.metrics["promotion/promoted"]) == (told["decision"], 0.0)
    assert deployed.registry("commanded").at(CHAMPION) is None
    tags = tags_of(deployed, "commanded")
    assert (tags["approval"], tags["approval.reason"]) == ("rejected", "too terse")


@pytest.mark.slow
def test_when_nobody_answers_in_time_the_server_starts_the_run_anew_and_it_records_that(deployed):
    run = deployed.submit("silent", timeout_hours=20 / 3600)
    assert deployed.execute(run) is None
    assert deployed.state(run)["name"] == "Suspended"
    deadline = time.monotonic() + 120
    while deployed.state(run)["name"] == "Suspended":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    result = deployed.execute(run)
    assert "; not approved: nobody answered until " in result.decision
    assert deployed.registry("silent").at(CHAMPION) is None
    assert deployed.registry("silent").unfinished() == []
    left = deployed.call("POST", "/automations/filter", {})
    assert [one["name"] for one in left if run in one["name"]] == []


@pytest.mark.slow
def test_a_command_does_not_wait_and_is_answered_by_another(deployed, capsys):
    place = deployed.place
    flags = {"model_name": "typed", "promotion.approval.ask": "true"}
    result = place.run(**flags)
    assert (result["status"], result["metrics"].get("promotion/promoted")) == ("waiting", None)
    assert "python -m flows approve --model_name=typed" in result["decision"]
    assert deployed.registry("typed").at(CHAMPION) is None
    answered = place.run("approve", model_name="typed", answer="approve")
    assert (answered["version"], answered["metrics"]["promotion/promoted"]) == ("1", 1.0)
    champion = deployed.registry("typed").at(CHAMPION)
    assert champion is not None
    assert champion.model == ModelRef.model_validate(answered["model"])
    assert deployed.registry("typed").unfinished() == []


def test_what_nobody_answered_in_time_is_not_promoted_by_the_next_run_either(
    tmp_path, tiny_ref, monkeypatch, prefect_server
):
    monkeypatch.setenv("LOOPWRIGHT_HOME", str(tmp_path))
    tracking = new_tracking(tmp_path)
    asked = {"ask": True, "timeout_hours": 1.0}
    settings = {"first": "promote", "approval": asked}
    promotion, run, version = registered(tmp_path, tiny_ref, tracking, tiny_ref, "lost", **settings)
    tracking.suspend(run.run_id)
    assert promotion.complete(version, ask=False) is None  # there is time
    assert (promotion.registry.at(CHAMPION), len(promotion.registry.heads())) == (None, 1)

    question = Question.model_validate_json(version.tags[ASKED])
    over = question.model_copy(update={"until": question.until - timedelta(hours=2)})
    promotion.registry.tag(version, ASKED, over.model_dump_json())
    (version,) = promotion.registry.unfinished()
    decision = promotion.complete(version, ask=False)
    assert decision is not None
    assert (decision.promoted, "nobody answered until" in decision.words) == (False, True)
    assert (promotion.registry.at(CHAMPION), promotion.registry.unfinished()) == (None, [])
    assert tracking.client.get_run(run.run_id).info.status == "KILLED"
