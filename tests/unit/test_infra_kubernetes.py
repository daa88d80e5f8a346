"""Kubernetes manifests, as kustomize builds them: held against the API's schemas and against what they promise."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tasks.core.fan_out import FanOutConfig
from tests.containers import COMPOSE, INFRA, ROOT, SECRETS, compose_stack

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

VERSION = "1.32"
OVERLAYS = ("base", "gpu", "train", "ray")
overlays = pytest.mark.parametrize("name", OVERLAYS)
Manifest = dict[str, Any]

RAY_CLUSTER = {
    "spec": {"rayVersion", "authOptions", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"},
    "head": {"rayStartParams", "template"},
    "worker": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}
"""Fields of KubeRay's RayCluster (ray.io/v1, 1.5) that are used. Its schema is in no package: names are all that is
held against it, and pod templates against Kubernetes' own."""


@cache
def build(name: str) -> list[Manifest]:
    """What `kubectl apply -k` would send."""
    command = ["kubectl", "kustomize", str(INFRA / "kubernetes" / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pod_specs(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod template with the kind it stands in."""
    for one in manifests:
        if one["kind"] == "RayCluster":
            for group in (one["spec"]["headGroupSpec"], *one["spec"]["workerGroupSpecs"]):
                yield "RayCluster", group["template"]
        elif template := one.get("spec", {}).get("template"):
            yield one["kind"], template


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    return next(one for one in manifests if (one["kind"], one["metadata"]["name"]) == (kind, name))


@overlays
def test_every_manifest_fits_the_schema_and_the_namespace(name: str) -> None:
    for one in build(name):
        assert one["metadata"].get("namespace", one["metadata"]["name"]) == "loopwright"
        if one["kind"] == "RayCluster":
            spec = one["spec"]
            assert spec.keys() <= RAY_CLUSTER["spec"]
            assert spec["headGroupSpec"].keys() <= RAY_CLUSTER["head"]
            assert all(group.keys() <= RAY_CLUSTER["worker"] for group in spec["workerGroupSpecs"])
            for _, template in pod_specs([one]):
                as_template = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
                kubernetes_validate.validate(as_template, VERSION, strict=True)
        else:
            kubernetes_validate.validate(one, VERSION, strict=True)


def test_the_schema_is_strict() -> None:
    worker = find(build("base"), "Deployment", "worker")
    wrong = yaml.safe_load(yaml.safe_dump(worker).replace("readOnlyRootFilesystem", "readonlyRootFilesystem"))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


@overlays
def test_pods_are_nobody_in_particular_and_write_to_volumes_only(name: str) -> None:
    """What the namespace demands (Pod Security, restricted), and a read-only root file system beyond it."""
    for kind, template in pod_specs(build(name)):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 999
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        volumes = {one["name"] for one in spec["volumes"]} | {"data"}
        for container in spec["containers"]:
            context = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
            assert container["securityContext"] == context | {"capabilities": {"drop": ["ALL"]}}
            mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
            assert "/tmp" in mounts
            assert set(mounts.values()) <= volumes
            assert ":" in container["image"]
            assert not container["image"].endswith(":latest")
            assert {"requests", "limits"} <= container["resources"].keys()
            assert kind == "Job" or {"readinessProbe", "livenessProbe"} & container.keys()
        assert "serviceAccountName" in spec or spec["automountServiceAccountToken"] is False
        assert spec.get("terminationGracePeriodSeconds", 30) >= 30


@overlays
def test_what_a_pod_refers_to_is_there(name: str) -> None:
    everything = [*build("base"), *build(name)]
    names = {(one["kind"], one["metadata"]["name"]) for one in everything}
    for _, template in pod_specs(build(name)):
        spec = template["spec"]
        for volume in spec["volumes"]:
            for source in (volume, *volume.get("projected", {}).get("sources", [])):
                if "configMap" in source:
                    assert ("ConfigMap", source["configMap"]["name"]) in names
                if "persistentVolumeClaim" in source:
                    assert ("PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"]) in names
        if "serviceAccountName" in spec:
            assert ("ServiceAccount", spec["serviceAccountName"]) in names
        for container in spec["containers"]:
            for source in container.get("envFrom", []):
                assert ("ConfigMap", source["configMapRef"]["name"]) in names
            given: set[str] = set()
            for variable in container["env"]:
                if secret := variable.get("valueFrom", {}).get("secretKeyRef"):
                    assert secret["name"] == "loopwright"
                    assert secret["key"] in SECRETS
                used = variable.get("value", "")
                assert "$(" not in used or used.partition("$(")[2].partition(")")[0] in given  # set before it
                if settings := variable.get("valueFrom", {}).get("configMapKeyRef"):
                    assert settings["key"] in find(everything, "ConfigMap", settings["name"])["data"]
                given.add(variable["name"])


def test_no_secret_is_in_the_manifests() -> None:
    assert not [one for name in OVERLAYS for one in build(name) if one["kind"] == "Secret"]


def test_servers_run_by_the_commands_and_settings_of_the_compose_stack() -> None:
    """A test of that stack runs them (tests/unit/test_infra_compose.py)."""
    compose = compose_stack({name: f"$({name})" for name in SECRETS})["services"]
    base = build("base")
    clients = find(base, "ConfigMap", "clients")["data"]
    for name in ("prefect", "mlflow"):
        container = find(base, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]
        ours, theirs = container["command"], compose[name]["command"]
        allowed = [
            word.split("=")[1].split(",") for words in (ours, theirs) for word in words if "hosts=" in word
        ]
        assert [set(hosts) for hosts in allowed[:1]] == [set(hosts) for hosts in allowed[1:]]
        assert [word for word in ours if "hosts=" not in word] == [
            word for word in theirs if "hosts=" not in word
        ]
        variables = {one["name"]: one for one in container["env"]}
        variables.pop("POSTGRES_PASSWORD")
        assert variables.keys() == compose[name]["environment"].keys()
        for variable, value in compose[name]["environment"].items():
            one = variables[variable]
            source = one.get("valueFrom", {})
            given = clients.get(source.get("configMapKeyRef", {}).get("key"))
            assert one.get("value", given or f"$({source.get('secretKeyRef', {}).get('key')})") == value
    store = find(base, "StatefulSet", "store")["spec"]["template"]["spec"]["containers"][0]
    assert store["args"] == compose["store"]["command"]
    images = {one["image"] for _, template in pod_specs(base) for one in template["spec"]["containers"]}
    assert images == {one["image"] for one in compose.values()}
    assert clients == {
        name: value for name, value in compose["worker"]["environment"].items() if name in clients
    }


@pytest.mark.slow
def test_the_worker_s_command_is_one_that_its_program_takes() -> None:
    """It needs a cluster to run."""
    container = find(build("base"), "Deployment", "worker")["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][0] == "python"
    done = subprocess.run(
        [sys.executable, *container["command"][1:], "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    options = [word for word in container["command"] if word.startswith("--")]
    assert all(option in done.stdout for option in options), done.stdout


def test_the_gpu_overlay_changes_the_template_of_runs_and_nothing_else() -> None:
    base, gpu = build("base"), build("gpu")
    assert [one for one in gpu if one not in base] == [find(gpu, "ConfigMap", "job-template")]


def test_scripts_are_scripts() -> None:
    for file in (INFRA / "kubernetes" / "base" / "setup.sh", COMPOSE.with_name("setup.sh")):
        assert subprocess.run(["sh", "-n", file]).returncode == 0


def pods() -> dict[str, dict[str, str]]:
    """The labels of every pod by a short name; runs are made from the job template, which gives them `app: run`."""
    from_manifests = {
        template["metadata"]["labels"]["app"]: template["metadata"]["labels"]
        for name in OVERLAYS
        for _, template in pod_specs(build(name))
    }
    trains = find(build("train"), "Job", "train")["spec"]["template"]["metadata"]["labels"]
    return from_manifests | {"run": {"app": "run"}, "train": trains}


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", [])
    )


def allowed(source: str, target: str, port: int) -> bool:
    """Whether the policies let a connection out of the one pod and into the other, as Kubernetes reads them."""
    policies = [
        one["spec"]
        for name in ("base", "train", "ray")
        for one in build(name)
        if one["kind"] == "NetworkPolicy"
    ]
    known = pods()

    def passes(pod: str, other: str, direction: str, peers: str) -> bool:
        of_pod = [
            one
            for one in policies
            if selects(one["podSelector"], known[pod]) and direction.capitalize() in one["policyTypes"]
        ]
        rules = [rule for one in of_pod for rule in one.get(direction, [])]
        return not of_pod or any(
            (not rule.get("ports") or port in [one["port"] for one in rule["ports"]])
            and any(
                "podSelector" in peer and selects(peer["podSelector"], known[other])
                for peer in rule.get(peers, [])
            )
            for rule in rules
        )

    return passes(source, target, "egress", "to") and passes(target, source, "ingress", "from")


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        ("prefect", "postgres", 5432),
        ("mlflow", "postgres", 5432),
        ("mlflow", "store", 8333),
        ("worker", "prefect", 4200),
        ("setup", "prefect", 4200),
        ("setup", "store", 8333),
        *((source, "prefect", 4200) for source in ("run", "train", "ray")),
        *((source, "mlflow", 5000) for source in ("run", "train", "ray")),
        *((source, "store", 8333) for source in ("run", "train", "ray")),
        ("train", "train", 29500),
        ("ray", "ray", 6379),
        ("run", "ray", 10001),
    ],
)
def test_the_network_lets_through_what_is_needed(source: str, target: str, port: int) -> None:
    assert allowed(source, target, port)


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        ("run", "postgres", 5432),
        ("worker", "postgres", 5432),
        ("setup", "mlflow", 5000),
        ("prefect", "mlflow", 5000),
        ("prefect", "store", 8333),
        ("run", "run", 29500),
        ("run", "train", 29500),
        ("run", "prefect", 22),
        ("postgres", "prefect", 4200),
        ("worker", "store", 8333),
        ("prefect", "worker", 8080),
        ("run", "ray", 8265),
    ],
)
def test_and_nothing_else(source: str, target: str, port: int) -> None:
    assert not allowed(source, target, port)


def test_a_pod_that_no_policy_names_is_cut_off_in_both_directions() -> None:
    """The pods above are held by policies of their own as well, which would hide it if this one were missing."""
    nothing = find(build("base"), "NetworkPolicy", "nothing")["spec"]
    assert nothing == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_training_starts_the_flow_on_one_machine_and_waits_on_the_others() -> None:
    job = find(build("train"), "Job", "train")["spec"]
    assert (job["completionMode"], job["completions"], job["backoffLimit"]) == (
        "Indexed",
        job["parallelism"],
        0,
    )
    spec = job["template"]["spec"]
    container = spec["containers"][0]
    assert f"--launch.nodes={job['completions']}" in container["args"]
    assert f"--launch.processes={container['resources']['limits']['nvidia.com/gpu']}" in container["args"]
    files = [word.partition("=")[2] for word in container["args"] if word.endswith((".yaml", ".json"))]
    assert all((ROOT / file).exists() for file in files)
    variables = {one["name"]: one.get("value") for one in container["env"]}
    service = find(build("train"), "Service", spec["subdomain"])["spec"]
    assert variables["MASTER_ADDR"] == f"train-0.{spec['subdomain']}"
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert str(variables["LOOPWRIGHT_NODES"]).startswith("/data/")
    shared = {one["name"]: one for one in spec["volumes"]}["shm"]["emptyDir"]
    assert shared["medium"] == "Memory"


def test_a_run_can_use_the_ray_cluster_as_its_file_says() -> None:
    text = (INFRA / "kubernetes" / "ray" / "cluster.yaml").read_text()
    cluster = find(build("ray"), "RayCluster", "ray")
    name = cluster["metadata"]["name"]
    flags = re.findall(r"--fan_out\.(\w+)=(\S+)", text)
    # KubeRay names the head's service so, and keeps the token in a Secret of the cluster's name.
    assert FanOutConfig(**dict(flags)).cluster == f"ray://{name}-head-svc:10001"
    (image,) = {
        container["image"] for _, pod in pod_specs([cluster]) for container in pod["spec"]["containers"]
    }
    assert f"--job-variable image={image} " in text
    template = json.loads((INFRA / "kubernetes" / "base" / "job-template.json").read_text())
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    token = next(one for one in pod["containers"][0]["env"] if one["name"] == "RAY_AUTH_TOKEN")
    assert token["valueFrom"]["secretKeyRef"] == {"name": name, "key": "auth_token", "optional": True}


def test_ray_is_the_version_that_is_pinned() -> None:
    pinned = [line for line in (ROOT / "constraints.txt").read_text().split() if line.startswith("ray==")]
    if not pinned:
        pytest.skip("constraints.txt pins no Ray")
    assert find(build("ray"), "RayCluster", "ray")["spec"]["rayVersion"] == pinned[0].removeprefix("ray==")
