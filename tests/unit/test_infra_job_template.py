"""The work pool's job template: what Prefect makes of it for a run, held against Kubernetes' schema."""

import inspect
import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
from prefect.runner._process_manager import ProcessManager

from tests.containers import INFRA, ROOT, start_command
from tests.s3_server import s3_server

FILES = {name: INFRA / "kubernetes" / name / "job-template.json" for name in ("base", "gpu")}
VERSION = "1.32"


def read(name: str) -> dict[str, Any]:
    template: dict[str, Any] = json.loads(FILES[name].read_text())
    return template


def test_the_two_templates_differ_by_defaults_only() -> None:
    base, gpu = read("base"), read("gpu")
    assert base["job_configuration"] == gpu["job_configuration"]
    changed = set()
    for name, variable in base["variables"]["properties"].items():
        other = gpu["variables"]["properties"][name]
        if variable != other:
            changed.add(name)
        assert {key: value for key, value in variable.items() if key != "default"} == {
            key: value for key, value in other.items() if key != "default"
        }
    assert changed == {"image", "gpus", "cpus", "memory", "shared_memory", "node_selector", "tolerations"}


def configuration(template: dict[str, Any], values: dict[str, Any]) -> Any:
    """What a Kubernetes worker makes of a pool's template and a deployment's job variables."""
    import asyncio

    from prefect.client.orchestration import PrefectClient
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    # Asked only for blocks that a template names, and this one names none: there need be nobody at the address.
    client = PrefectClient("http://127.0.0.1:9/api")
    given = {"base_job_template": template, "values": values, "client": client}
    return asyncio.run(KubernetesWorkerJobConfiguration.from_template_and_values(**given))


def rendered(template: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The Job of a run, by the steps that the worker takes."""
    from prefect.client.schemas.objects import FlowRun

    job = configuration(template, values)
    job.prepare_for_flow_run(FlowRun(id=uuid4(), name="brave-otter", flow_id=uuid4()))
    manifest: dict[str, Any] = job.job_manifest
    return manifest


def check(manifest: dict[str, Any]) -> dict[str, Any]:
    """Hold a Job against the schema, and return its pod's specification."""
    manifest = json.loads(json.dumps(manifest))
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    # The worker insists on these two where Kubernetes has no such fields, and Kubernetes drops them.
    assert (spec.pop("parallelism"), spec.pop("completions")) == (1, 1)
    kubernetes_validate.validate(manifest, VERSION, strict=True)
    return spec


@pytest.mark.parametrize("name", FILES)
def test_a_run_is_a_job_that_kubernetes_takes(name: str) -> None:
    manifest = rendered(read(name), {"working_dir": "/app"})  # what the deployments of this project say
    spec = check(manifest)
    container = spec["containers"][0]
    assert manifest["spec"]["backoffLimit"] == 0
    assert manifest["metadata"]["namespace"] == "loopwright"
    assert manifest["spec"]["template"]["metadata"]["labels"]["app"] == "run"  # network policies go by it
    assert spec["terminationGracePeriodSeconds"] >= 30
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["workingDir"] == "/app"
    assert container["args"][-3:] == ["prefect", "flow-run", "execute"] or container["args"][0] == "prefect"
    volumes = {one["name"]: one for one in spec["volumes"]}
    mounted = {one["mountPath"]: volumes[one["name"]] for one in container["volumeMounts"]}
    assert mounted["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    assert mounted["/data"]["persistentVolumeClaim"] == {"claimName": "runs"}
    variables = {one["name"]: one for one in container["env"]}
    # The run of a pod that is evicted or drained goes back into the queue.
    assert variables["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"]["value"] == "reschedule"
    secrets = {key for key, one in variables.items() if "secretKeyRef" in one.get("valueFrom", {})}
    assert secrets == {
        "PREFECT_API_AUTH_STRING",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "RAY_AUTH_TOKEN",
    }
    optional = [key for key in secrets if variables[key]["valueFrom"]["secretKeyRef"].get("optional")]
    assert optional == ["RAY_AUTH_TOKEN"]  # where there is no Ray cluster there is no such Secret
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    placed = (gpus, bool(spec["tolerations"]), bool(spec["nodeSelector"]))
    assert placed == ((1, True, True) if name == "gpu" else (0, False, False))


@pytest.mark.parametrize("name", ["base", "gpu"])
def test_the_template_promises_no_more_time_than_prefect_gives_a_run(name: str) -> None:
    """`prefect flow-run execute` kills its child after a time of its own, for which there is no setting."""
    given = inspect.signature(ProcessManager.kill).parameters["grace_seconds"].default
    words = read(name)["variables"]["properties"]["grace_seconds"]["description"]
    assert f"Prefect gives a run {given}, whatever stands here" in words


def test_job_variables_reach_their_places() -> None:
    values = {
        "gpus": 8,
        "memory": "512Gi",
        "shared_memory": "64Gi",
        "labels": {"loopwright/internet": "true"},
        "node_selector": {"gpu": "h200"},
        "tolerations": [{"key": "reserved", "operator": "Exists"}],
        "env": {"NCCL_DEBUG": "INFO"},
        "grace_seconds": 600,
        "image": "registry.example/loopwright:7",
    }
    manifest = rendered(read("gpu"), values)
    spec = check(manifest)
    container = spec["containers"][0]
    assert container["image"] == "registry.example/loopwright:7"
    assert container["resources"]["limits"] == {"memory": "512Gi", "nvidia.com/gpu": 8}
    assert container["resources"]["requests"]["memory"] == "512Gi"
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in container["env"]
    assert {one["name"]: one for one in spec["volumes"]}["shm"]["emptyDir"]["sizeLimit"] == "64Gi"
    assert (spec["nodeSelector"], spec["tolerations"][0]["key"]) == ({"gpu": "h200"}, "reserved")
    assert spec["terminationGracePeriodSeconds"] == 600
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    assert (labels["loopwright/internet"], labels["app"]) == ("true", "run")
    assert labels["prefect.io/flow-run-name"] == "brave-otter"  # the observer finds pods by these


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_server_takes_the_template_and_gives_it_back_for_a_deployment(
    name: str, prefect_server: str
) -> None:
    import httpx

    pool = f"loopwright-{name}"
    asked = {"name": pool, "type": "kubernetes", "base_job_template": read(name)}
    httpx.post(f"{prefect_server}/work_pools/", json=asked, timeout=60).raise_for_status()
    kept = httpx.get(f"{prefect_server}/work_pools/{pool}", timeout=60).raise_for_status().json()
    check(rendered(kept["base_job_template"], {"working_dir": "/app", "gpus": 2}))
    flow = httpx.post(f"{prefect_server}/flows/", json={"name": pool}, timeout=60).json()["id"]
    deployment = {"name": "one", "flow_id": flow, "work_pool_name": pool}
    answers = [
        httpx.post(
            f"{prefect_server}/deployments/", json=deployment | {"job_variables": variables}, timeout=60
        )
        for variables in ({"working_dir": "/app", "gpus": 2}, {"gpus": "many"}, {"grace_seconds": 5})
    ]
    assert [answer.status_code for answer in answers] == [201, 422, 422], [one.text for one in answers]


@pytest.mark.slow
def test_the_setup_job_s_script_makes_pool_bucket_and_deployments(
    prefect_server: str, tmp_path: Path
) -> None:
    import httpx

    def get(path: str) -> Any:
        return httpx.get(f"{prefect_server}/{path}", timeout=60).raise_for_status().json()

    httpx.delete(f"{prefect_server}/work_pools/loopwright", timeout=60)  # another test's
    environment = {"PREFECT_API_URL": prefect_server, "LOOPWRIGHT_HOME": str(tmp_path), "DO_NOT_TRACK": "1"}
    with s3_server("unused") as s3:
        environment |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        for template in ("base", "gpu"):  # the second time as after a change
            script = tmp_path / "setup.sh"
            text = (INFRA / "kubernetes" / "base" / "setup.sh").read_text()
            script.write_text(text.replace("/etc/loopwright/job-template.json", str(FILES[template])))
            log = tmp_path / "setup.log"
            assert start_command(["sh", str(script)], environment, {}, log).wait(timeout=300) == 0, (
                log.read_text()
            )
        assert "loopwright" in {one["Name"] for one in s3.list_buckets()["Buckets"]}
    pool = get("work_pools/loopwright")
    assert (pool["type"], pool["base_job_template"]) == ("kubernetes", read("gpu"))
    demo = get("deployments/name/llm2llm/demo")
    assert demo["work_pool_name"] == "loopwright"
    spec = check(rendered(pool["base_job_template"], demo["job_variables"]))
    assert spec["containers"][0]["workingDir"] == str(ROOT)
