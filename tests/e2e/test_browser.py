"""What a person sees of a finished run in Prefect's and MLflow's pages, opened by the commands the run printed."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.free_port import free_port

ROOT = Path(__file__).parents[2]
SCREENS = ROOT / "build" / "screens"
CHROMIUM = shutil.which("chromium")
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
_FLAGS += ["--disable-component-update", "--disable-sync"]
_PATIENCE_MS = 120_000

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    """The result of a run of two iterations with the tiny model, on a temporary Prefect API."""
    home = tmp_path_factory.mktemp("home")
    small = ["--iterations=2", "--training.max_steps=3", "--augment.max_new_tokens=24", "--data.test_rows=10"]
    command = [sys.executable, "-m", "flows", "llm2llm", "--config", "deployments/configs/demo.yaml", *small]
    models = [f"--student.model={tiny_model}", f"--teacher.model={tiny_model}"]
    done = subprocess.run(
        [*command, *models],
        env=os.environ | {"LOOPWRIGHT_HOME": str(home), "PREFECT_HOME": str(home / "prefect")},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def browse(visit: Callable[[Any], None]) -> None:
    """Call `visit` with a page of a new browser, in a thread of its own: Playwright leaves its event loop in the
    thread it ran in, where no later test could run another."""

    def work() -> None:
        from playwright.sync_api import sync_playwright

        SCREENS.mkdir(parents=True, exist_ok=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(_PATIENCE_MS)
            visit(page)
            browser.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(work).result()


@contextmanager
def served(command: str, port: int, health: str, **settings: str) -> Iterator[str]:
    """Run a command that a flow printed, on a port of our own, until the block ends."""
    words = [word for word in shlex.split(command) if "=" not in word.split("/")[0]]
    named = dict(word.split("=", 1) for word in shlex.split(command) if word not in words)
    process = subprocess.Popen(
        [*words, "--port", str(port)], env=os.environ | named | settings, start_new_session=True
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(url + health, timeout=5):
                    break
            except OSError:
                assert process.poll() is None, f"{command} ended with {process.returncode}"
                time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_prefect_shows_the_run_with_its_stages_table_and_report(finished: dict[str, Any]) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    with served(finished["places"]["Prefect"], port, "/api/health", PREFECT_UI_API_URL=api) as url:

        def visit(page: Any) -> None:
            page.goto(f"{url}/runs/flow-run/{finished['flow_run_id']}")
            page.get_by_text("Completed").first.wait_for()
            page.get_by_text("iteration 2: train").first.wait_for()
            page.screenshot(path=SCREENS / "prefect-run.png")
            page.get_by_text("Artifacts", exact=True).first.click()
            page.get_by_text("llm2llm-iterations").first.click()
            page.get_by_text("test accuracy").first.wait_for()  # a column of the table
            page.screenshot(path=SCREENS / "prefect-table.png")

        browse(visit)


def test_mlflow_shows_the_tree_the_curves_and_the_report(finished: dict[str, Any]) -> None:
    port = free_port()
    with served(finished["places"]["MLflow"], port, "/health") as url:

        def visit(page: Any) -> None:
            page.goto(f"{url}/#/experiments/1/runs")
            page.get_by_text("llm2llm-test").first.wait_for()  # the data set's column
            page.get_by_role("button", name="Expand row").or_(
                page.locator("[role=gridcell] svg")
            ).first.wait_for()
            page.screenshot(path=SCREENS / "mlflow-runs.png")
            run = f"{url}/#/experiments/1/runs/{finished['mlflow_run_id']}"
            page.goto(f"{run}/model-metrics")
            for name in ("kept", "train_rows", "wrong"):
                page.get_by_text(name, exact=True).first.wait_for()
            page.locator(".js-plotly-plot .main-svg").first.wait_for()  # the curves themselves
            page.wait_for_timeout(1000)  # the others
            page.screenshot(path=SCREENS / "mlflow-curves.png")
            page.goto(f"{run}/artifacts/report/report.html")
            page.frame_locator("iframe").get_by_text("Iterations").first.wait_for()
            page.screenshot(path=SCREENS / "mlflow-report.png")

        browse(visit)
