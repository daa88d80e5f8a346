"""A retraining on a schedule of seconds, on the servers and the worker of `make up`, while rows arrive."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.tracking import Tracking, TrackingConfig
from tests.asking_again import PREFECT_CLIENT
from tests.flows.test_retrain import Place, messages
from tests.flows.test_service import Service, wait_until
from tests.scripted_server import ScriptedServer

pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]

NOTHING_NEW = "Nothing new"


class Scheduled:
    """The deployment retrain/library on a schedule."""

    def __init__(self, service: Service, place: Place, every_s: float) -> None:
        self.service = service
        self.deployment = service.get("/deployments/name/retrain/library")["id"]
        config = {
            "location": place.flags["location"],
            "model_name": place.flags["model_name"],
            "method_settings": json.loads(place.flags["method_settings"]),
            "promotion": {"first": "promote"},
        }
        schedule = {
            "schedule": {"interval": every_s},
            "active": True,
            "parameters": {"config": config},
            "slug": "often",
        }
        (made,) = service.post(f"/deployments/{self.deployment}/schedules", [schedule])
        self.schedule = made["id"]

    def runs(self) -> list[dict[str, Any]]:
        """The firings that have begun, in the order of their begin."""
        body = {
            "deployments": {"id": {"any_": [self.deployment]}},
            "flow_runs": {"start_time": {"is_null_": False}},
            "sort": "START_TIME_ASC",
        }
        return list(self.service.post("/flow_runs/filter", body))

    def decisions(self, place: Place) -> list[str]:
        """What the firings that ended well came to, but for those that found nothing new."""
        found = Tracking(TrackingConfig(uri=place.tracking)).search("tags.method = 'retrain'")
        words = [
            run.data.tags.get("decision", "") for run in sorted(found, key=lambda run: run.info.start_time)
        ]
        return [one for one in words if one and NOTHING_NEW not in one]

    def stop(self) -> None:
        """Switch the schedule off, and wait for the firing that is under way."""
        path = f"/deployments/{self.deployment}/schedules/{self.schedule}"
        PREFECT_CLIENT.delete(f"{self.service.api}{path}").raise_for_status()
        wait_until(lambda: all(run["end_time"] for run in self.runs()), 120)


def test_a_schedule_of_seconds_retrains_as_rows_arrive_and_never_overlaps_itself(
    tmp_path: Path, tiny_model: Path
):
    service = Service(tmp_path / "home")
    try:
        service.up()
        with ScriptedServer() as teacher:
            place = Place(tmp_path / "place", tiny_model, teacher.url, service.api)
            place.tracking = f"http://127.0.0.1:{service.mlflow}"
            scheduled = Scheduled(service, place, every_s=10)
            wait_until(lambda: len(scheduled.decisions(place)) == 1)
            place.drop("more.jsonl", messages(100, 120))
            wait_until(lambda: len(scheduled.decisions(place)) == 2)
            place.drop("poison.jsonl", messages(300, 120, poisoned=True))
            wait_until(lambda: len(scheduled.decisions(place)) == 3)
            scheduled.stop()
        first, second, third = scheduled.decisions(place)
        assert ("is champion" in first, "is champion" in second, "was not promoted" in third) == (True,) * 3
        assert place.aliases() == ("2", "1")
        events = {"event": {"prefix": ["loopwright.model."]}}
        found = service.post("/events/filter", {"filter": events})["events"]
        told = sorted(
            (one["payload"]["version"], one["event"], one["resource"]["prefect.resource.id"]) for one in found
        )
        outcomes = (("1", "promoted"), ("2", "promoted"), ("3", "refused"))
        resource = f"loopwright.model.{place.flags['model_name']}"
        assert told == [(version, f"loopwright.model.{word}", resource) for version, word in outcomes]
        runs = scheduled.runs()
        assert len(runs) >= 3
        assert {run["state"]["type"] for run in runs} == {"COMPLETED"}
        ended = ""
        for run in runs:
            assert run["start_time"] >= ended, "it began before the one before it had ended"
            ended = run["end_time"]
    finally:
        service.command("down")
