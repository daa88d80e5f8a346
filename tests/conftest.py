"""What all tests share: an environment without network, a folder of their own, one tiny model, one Prefect server."""

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import absl.logging
import pytest

_HOME = tempfile.mkdtemp(prefix="loopwright-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
# Before anything imports Prefect or transformers: both read their settings on import.
os.environ |= {"LOOPWRIGHT_HOME": _HOME, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
# A command that a shell runs in the background ignores Ctrl-C, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _name in ("LOOPWRIGHT_STORE", "MLFLOW_TRACKING_URI", "PREFECT_API_URL", "RAY_ADDRESS"):
    os.environ.pop(_name, None)

from tasks.core.references import ModelRef  # noqa: E402
from tasks.core.settings import set_environment  # noqa: E402

set_environment()

# rouge-score brings absl, whose log handler holds pytest's captured stream and closes it when Prefect sets up logging;
# the process's own stream it leaves open.
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in tests/flows are marked `flow`, those in tests/e2e `e2e`."""
    for item in items:
        for folder, mark in (("flows", "flow"), ("e2e", "e2e")):
            if folder in item.path.parts:
                item.add_marker(mark)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random model of some 40,000 parameters; not to be written to."""
    from tests.tiny_model import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def tiny_ref(tiny_model: Path) -> ModelRef:
    """The tiny model as a reference."""
    from tasks.core.digests import folder_digest

    return ModelRef(uri=str(tiny_model), digest=folder_digest(tiny_model))


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """The address of one Prefect server; flows in this process use it, others by PREFECT_API_URL."""
    from prefect.settings import get_current_settings
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield str(get_current_settings().api.url)
