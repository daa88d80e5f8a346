"""A run that a person starts in Prefect's page, by filling in two fields."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

from tests.asking_again import PREFECT_CLIENT
from tests.e2e.test_browser import CHROMIUM, SCREENS, browse
from tests.flows.test_service import Service, start, tiny, wait_until

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Service]:
    """The service, its preset `llm2llm/snips` with the tiny model and little to do."""
    service = Service(tmp_path_factory.mktemp("service"))
    service.up()
    deployment = service.get("/deployments/name/llm2llm/snips")
    parameters = {"config": tiny(deployment["parameters"]["config"], tiny_model)}
    address = f"{service.api}/deployments/{deployment['id']}"
    assert PREFECT_CLIENT.patch(address, json={"parameters": parameters}).is_success
    yield service
    service.command("down")


def submit(page: Any) -> None:
    """Press Submit until the page has taken it: for a moment after typing it still goes by what was missing before."""
    form = page.url
    for _ in range(20):
        page.get_by_role("button", name="Submit").click()
        for _ in range(50):
            if page.url != form:
                return
            page.wait_for_timeout(100)
    raise AssertionError("the form was not submitted")


@pytest.mark.slow
def test_two_fields_of_the_form_start_a_run_whose_page_shows_its_report(service):
    deployment = service.get("/deployments/name/llm2llm/snips")
    base = service.api.removesuffix("/api")

    def visit(page: Any) -> None:
        page.goto(f"{base}/deployments/deployment/{deployment['id']}/run")
        page.get_by_text("Address of the training rows").wait_for()
        page.screenshot(path=SCREENS / "service-form-empty.png")
        page.get_by_role("button", name="Submit").click()
        fields = page.locator("textarea")
        page.get_by_text("required").first.wait_for()
        fields.nth(0).scroll_into_view_if_needed()
        page.screenshot(path=SCREENS / "service-form-refused.png")
        fields.nth(0).fill("deployments/data/library-train.jsonl")
        fields.nth(1).fill("deployments/data/library-test.jsonl")
        page.screenshot(path=SCREENS / "service-form.png")
        submit(page)
        page.get_by_text("Completed").first.wait_for(timeout=900_000)
        page.locator("a[href*='/runs/flow-run/']").first.click()
        page.get_by_text("iteration 1: train").first.wait_for()
        page.screenshot(path=SCREENS / "service-run.png")
        page.get_by_text("Artifacts", exact=True).first.click()
        page.get_by_text("llm2llm-iterations").first.click()
        page.get_by_text("test accuracy").first.wait_for()
        page.screenshot(path=SCREENS / "service-artifact.png")
        page.go_back()
        page.get_by_text("Artifacts", exact=True).first.click()
        page.get_by_text("llm2llm-report").first.click()
        page.locator(f"a[href^='http://127.0.0.1:{service.mlflow}']").first.wait_for()
        page.goto(
            str(page.locator(f"a[href^='http://127.0.0.1:{service.mlflow}']").first.get_attribute("href"))
        )
        page.get_by_text("model.uri").first.wait_for()  # a tag of the run
        page.screenshot(path=SCREENS / "service-mlflow-run.png")

    browse(visit)
    runs = PREFECT_CLIENT.post(f"{service.api}/flow_runs/filter", json={}).json()
    ours = [run for run in runs if run["deployment_id"] == deployment["id"]]
    assert [run["state"]["type"] for run in ours] == ["COMPLETED"]
    data = ours[0]["parameters"]["config"]["data"]
    assert (data["train"], data["seed_per_label"]) == ("deployments/data/library-train.jsonl", 1)


@pytest.mark.slow
def test_mlflow_compares_the_curves_of_two_runs(service):
    deployment = service.get("/deployments/name/llm2llm/snips")
    config = deployment["parameters"]["config"]
    data = {"train": "deployments/data/library-train.jsonl", "test": "deployments/data/library-test.jsonl"}
    client, runs = MlflowClient(f"http://127.0.0.1:{service.mlflow}"), []
    for kind in ("base", "continue"):
        settings = config | {"start": kind, "iterations": 2, "data": config["data"] | data}
        run = start(service.api, deployment, settings).json()["id"]
        wait_until(
            lambda run=run: service.get(f"/flow_runs/{run}")["state"]["type"] in ("COMPLETED", "FAILED")
        )
        [experiment] = [one for one in client.search_experiments() if one.name != "Default"]
        ours = f"tags.`prefect.flow_run_id` = '{run}' and params.start = '{kind}'"
        runs += client.search_runs([experiment.experiment_id], ours)
    histories = [client.get_metric_history(run.info.run_id, "eval/accuracy") for run in runs]
    assert [len(history) for history in histories] == [2, 2]
    names = [run.info.run_name for run in runs]
    pair = json.dumps([run.info.run_id for run in runs])
    compared = (
        f"/#/compare-runs?runs={quote(pair)}&experiments={quote(json.dumps([experiment.experiment_id]))}"
    )

    def visit(page: Any) -> None:
        page.goto(f"http://127.0.0.1:{service.mlflow}{compared}")
        page.get_by_text("Comparing 2 Runs").first.wait_for()
        for name in names:
            page.get_by_text(str(name)).first.wait_for()
        page.get_by_text("eval/accuracy").first.wait_for()
        page.screenshot(path=SCREENS / "service-mlflow-compare.png", full_page=True)

    browse(visit)
