"""Dockerfiles: read by a linter and a parser, held against constraints.txt and the project's files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.containers import INFRA, ROOT

IMAGES = sorted((INFRA / "images").glob("*.Dockerfile"))
images = pytest.mark.parametrize("file", IMAGES, ids=lambda file: file.name)


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def instructions(file: Path) -> list[tuple[str, str]]:
    parser = DockerfileParser(fileobj=file.open("rb"))
    return [(one["instruction"], one["value"]) for one in parser.structure]


@images
def test_the_linter_finds_nothing(file: Path) -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@images
def test_the_base_is_pinned_and_public_and_the_user_is_not_root(file: Path) -> None:
    said = instructions(file)
    bases = [value for name, value in said if name == "FROM"]
    assert all(re.fullmatch(r"(nvcr\.io/)?[a-z0-9/-]+:\d+\.\d+\.\d+[\w.-]*", base) for base in bases), bases
    assert [value for name, value in said if name == "USER"][-1] == "1000:1000"
    assert not re.search(r"https?://|index-url|password|token", file.read_text(), re.IGNORECASE)


@images
def test_every_file_that_is_copied_exists_and_reaches_the_builder(file: Path) -> None:
    let_through = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    copied = [value.split()[:-1] for name, value in instructions(file) if name == "COPY"]
    sources = {source for words in copied for source in words}
    assert {"constraints.txt", "flows", "tasks", "deployments", "infra"} <= sources
    assert all((ROOT / source).exists() for source in sources)
    assert sources <= let_through


@images
def test_every_package_that_is_asked_for_is_pinned(file: Path) -> None:
    """The extras of the image, and what they require, all have their line in constraints.txt."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (
        next(value for name, value in instructions(file) if name == "ARG").removeprefix("EXTRAS=").split(",")
    )
    wanted = [
        *project["dependencies"],
        *(one for name in extras for one in project["optional-dependencies"][name]),
    ]
    named = [Requirement(one) for one in wanted]
    known = pins()
    assert not [one.name for one in named if canonicalize_name(one.name) not in known]
    assert all(one.specifier.contains(known[canonicalize_name(one.name)]) for one in named)
    installs = re.findall(r"pip install ([^&]+)", " ".join(v for n, v in instructions(file) if n == "RUN"))
    assert len(installs) == 3
    assert all("--constraint" in words and "constraints.txt" in words for words in installs)


def test_torch_is_pinned_by_a_version_that_every_index_has() -> None:
    """Of a version with a build's name ("+cpu") the public index has none; without it pip takes either."""
    assert Version(pins()["torch"]).local is None
