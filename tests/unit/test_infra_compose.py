"""The Compose stack: its schema, its promises, and its commands run on this machine."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.containers import COMPOSE, INFRA, ROOT, SECRETS, compose_stack, start_command
from tests.free_port import free_port
from tests.postgresql import Database
from tests.s3_server import s3_server

GPU = INFRA / "compose" / "gpu.yaml"


def test_both_files_fit_the_compose_specification() -> None:
    check = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, COMPOSE, GPU], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(
    shutil.which("docker-compose") is None, reason="no docker-compose (apt-get install docker-compose)"
)
def test_docker_compose_reads_both_files_together_and_wants_the_secrets(tmp_path: Path) -> None:
    # Debian's is 1.29, which does not know the key `name` yet.
    shutil.copytree(INFRA, tmp_path / "infra")
    file = tmp_path / "infra" / "compose" / "compose.yaml"
    file.write_text(re.sub(r"^name:.*\n", "", file.read_text(), flags=re.MULTILINE))
    command = ["docker-compose", "-f", str(file), "-f", str(file.with_name("gpu.yaml")), "config"]
    environment = {"PATH": os.environ["PATH"]} | SECRETS
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "image: loopwright:gpu" in done.stdout
    without = {name: value for name, value in environment.items() if name != "S3_SECRET_KEY"}
    done = subprocess.run(command, env=without, capture_output=True, text=True)
    assert (done.returncode != 0, "see example.env" in done.stderr) == (True, True)


def test_every_secret_has_to_be_given() -> None:
    used = re.findall(r"\$\{(\w+)(:[?-]|\})", COMPOSE.read_text())
    assert {name for name, kind in used if kind != ":-"} == SECRETS.keys()
    assert {kind for _, kind in used} == {":?", ":-"}


def test_only_this_machine_reaches_the_ports_and_both_servers_ask_for_a_password() -> None:
    services = compose_stack(SECRETS)["services"]
    ports = [port for one in services.values() for port in one.get("ports", [])]
    assert sorted(port.rpartition(":")[2] for port in ports) == ["4200", "5000", "5432", "8333"]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    user = SECRETS["PREFECT_SERVER_API_AUTH_STRING"]
    assert services["prefect"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"] == user
    assert "--app-name=basic-auth" in services["mlflow"]["command"]
    assert all("restart" in one for one in services.values())
    served = ("postgres", "store", "prefect", "mlflow")
    assert all("healthcheck" in services[name] and services[name]["volumes"] for name in served)
    assert all(re.search(r":(\d+\.\d+[\w.-]*|cpu)$", one["image"]) for one in services.values())
    mounted = [volume.split(":")[0] for one in services.values() for volume in one.get("volumes", [])]
    assert all((COMPOSE.parent / source).exists() for source in mounted if source.startswith("."))


def wait_for(
    true: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path, patience_s: float = 240
) -> None:
    deadline = time.monotonic() + patience_s
    while not true():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def answers(url: str, **more: object) -> bool:
    try:
        return httpx.get(url, timeout=5, **more).status_code == 200  # type: ignore[arg-type]
    except httpx.HTTPError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Database.present(), reason="PostgreSQL is not installed (apt-get install postgresql)")
def test_the_stack_s_own_commands_run_here_together(tmp_path: Path) -> None:
    """PostgreSQL is Debian's with the stack's schemas, the store moto's; all else is started as Compose would."""
    services = compose_stack(SECRETS)["services"]
    ports = {name: free_port() for name in ("prefect", "mlflow")}
    database = Database(Path(tempfile.mkdtemp(prefix="loopwright-postgres-")))
    processes: list[subprocess.Popen[bytes]] = []
    with database, s3_server("unused") as s3:
        schemas = (INFRA / "postgres" / "schemas.sql").read_text()
        subprocess.run(["psql", "-v", "ON_ERROR_STOP=1", database.url], input=schemas, text=True, check=True)
        address = database.url.removeprefix("postgresql://").removesuffix("/postgres")
        replaced = {
            f"loopwright:{SECRETS['POSTGRES_PASSWORD']}@postgres:5432/loopwright": f"{address}/postgres",
            "http://store:8333": os.environ["AWS_ENDPOINT_URL"],
            "prefect:4200": f"127.0.0.1:{ports['prefect']}",
            "mlflow:5000": f"127.0.0.1:{ports['mlflow']}",
            "127.0.0.1:4200": f"127.0.0.1:{ports['prefect']}",
            "127.0.0.1:5000": f"127.0.0.1:{ports['mlflow']}",
            "--port=5000": f"--port={ports['mlflow']}",
            "0.0.0.0": "127.0.0.1",
            "/app": str(ROOT),
            "/data": str(tmp_path),
        }
        ini = tmp_path / "basic_auth.ini"
        ini.write_text((INFRA / "mlflow" / "basic_auth.ini").read_text().replace("/data", str(tmp_path)))

        def run(name: str) -> tuple["subprocess.Popen[bytes]", Path]:
            words = [str(ports["prefect"]) if word == "4200" else word for word in services[name]["command"]]
            environment = services[name]["environment"] | {
                "LOOPWRIGHT_HOME": "/data",
                "PREFECT_HOME": "/data/prefect",
            }
            if name == "mlflow":
                environment["MLFLOW_AUTH_CONFIG_PATH"] = str(ini)
            log = tmp_path / f"{name}.log"
            here = {"python": sys.executable} if words[0] == "python" else {}
            words[0] = here.get(words[0], words[0])
            processes.append(start_command(words, environment, replaced, log))
            return processes[-1], log

        def healthy(name: str) -> bool:
            command = [
                part.replace("4200", str(ports["prefect"])) for part in services[name]["healthcheck"]["test"]
            ]
            command = [part.replace("5000", str(ports["mlflow"])) for part in command]
            assert command[0] == "CMD"
            return subprocess.run([sys.executable, *command[2:]], capture_output=True).returncode == 0

        try:
            started = {name: run(name) for name in ("prefect", "mlflow")}
            for name in started:
                wait_for(lambda name=name: healthy(name), *started[name])  # type: ignore[misc]
            prefect, mlflow = (f"http://127.0.0.1:{ports[name]}" for name in ("prefect", "mlflow"))
            name, _, password = SECRETS["PREFECT_SERVER_API_AUTH_STRING"].partition(":")
            user, mlflow_user = (name, password), (SECRETS["MLFLOW_USERNAME"], SECRETS["MLFLOW_PASSWORD"])
            assert httpx.get(f"{prefect}/api/version").status_code == 401
            asked = f"{mlflow}/api/2.0/mlflow/experiments/get?experiment_id=0"
            assert [httpx.get(asked).status_code, httpx.get(asked, auth=mlflow_user).status_code] == [
                401,
                200,
            ]
            assert httpx.get(asked, auth=mlflow_user, headers={"Host": "evil.example"}).status_code == 403
            for _ in range(2):  # a second time, with everything there
                setup, log = run("setup")
                assert setup.wait(timeout=240) == 0, log.read_text()
            assert "loopwright" in {one["Name"] for one in s3.list_buckets()["Buckets"]}
            artifact = f"{mlflow}/api/2.0/mlflow-artifacts/artifacts/0/run/figures.json"
            assert httpx.put(artifact, content=b"[1]", auth=mlflow_user).status_code == 200
            assert httpx.get(artifact, auth=mlflow_user).content == b"[1]"
            kept = s3.get_object(Bucket="loopwright", Key="mlflow/0/run/figures.json")
            assert kept["Body"].read() == b"[1]"
            worker, log = run("worker")
            pool = f"{prefect}/api/work_pools/loopwright"

            def polls() -> bool:
                found = httpx.post(f"{pool}/workers/filter", json={}, auth=user).json()
                return [(one["name"], one["status"]) for one in found] == [("compose", "ONLINE")]

            wait_for(polls, worker, log)
            assert httpx.get(pool, auth=user).json()["type"] == "process"
            limit = httpx.get(f"{prefect}/api/v2/concurrency_limits/loopwright-gpu", auth=user).json()
            assert limit["limit"] == 1
            demo = httpx.get(f"{prefect}/api/deployments/name/llm2llm/demo", auth=user).json()
            assert json.dumps(demo["job_variables"]) == json.dumps({"working_dir": str(ROOT)})
        finally:
            for process in reversed(processes):
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait(timeout=90)
