"""Every file of infra/ has a test that exercises it."""

import re

from tests.containers import INFRA, ROOT

TESTS = {
    "README.md": "tests/unit/test_infra_files.py",
    "accelerate/*": "tests/unit/test_infra_sharding.py",
    "automations/*": "tests/unit/test_service_automations.py",
    "compose/*": "tests/unit/test_infra_compose.py",
    "deepspeed/*": "tests/unit/test_infra_sharding.py",
    "images/*": "tests/unit/test_infra_images.py",
    "kubernetes/base/job-template.json": "tests/unit/test_infra_job_template.py",
    "kubernetes/base/setup.sh": "tests/unit/test_infra_job_template.py",
    "kubernetes/base/*": "tests/unit/test_infra_kubernetes.py",
    "kubernetes/gpu/job-template.json": "tests/unit/test_infra_job_template.py",
    "kubernetes/gpu/*": "tests/unit/test_infra_kubernetes.py",
    "kubernetes/ray/*": "tests/unit/test_infra_kubernetes.py",
    "kubernetes/train/*": "tests/flows/test_infra_machines.py",
    "mlflow/*": "tests/unit/test_infra_compose.py",
    "postgres/kustomization.yaml": "tests/unit/test_infra_kubernetes.py",
    "postgres/schemas.sql": "tests/unit/test_infra_compose.py",
    "proxy/*": "tests/e2e/test_proxy.py",
    "slurm/*": "tests/flows/test_infra_machines.py",
}
"""The first pattern that fits a file says where its test is."""


def test_every_file_has_a_test_and_every_pattern_a_file() -> None:
    files = [path.relative_to(INFRA) for path in INFRA.rglob("*") if path.is_file() and path.name != ".env"]
    used = {path: next((pattern for pattern in TESTS if path.match(pattern)), None) for path in files}
    assert not [path for path, pattern in used.items() if pattern is None]
    assert set(used.values()) == TESTS.keys()
    for path, pattern in used.items():
        test = ROOT / TESTS[str(pattern)]
        folder = path.parts[-2] if len(path.parts) > 1 else path.name
        assert folder in test.read_text(), f"{test} does not look at {path}"


def test_the_readme_names_what_there_is() -> None:
    text = (INFRA / "README.md").read_text()
    assert [path.name for path in INFRA.iterdir() if path.is_dir() and f"`{path.name}/" not in text] == []
    there = {name for name in re.findall(r"infra/[\w./-]+", text) if not name.endswith(".env")}
    assert not [name for name in there if not (ROOT / name).exists()]
    assert len(there) > 10
