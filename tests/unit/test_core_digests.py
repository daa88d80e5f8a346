"""Digests: of files and folders by their content, of code by what it computes."""

import importlib
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from tasks.core.digests import code_digest, file_digest, folder_digest, path_digest
from tasks.problems.load import BUILT_IN

_numbers = itertools.count()


@pytest.fixture
def digest_of(tmp_path, monkeypatch):
    """The digest of the module `stage` in a package made of the given sources; the package's name never counts."""

    def digest(**sources: str) -> str:
        folder = tmp_path / str(next(_numbers))
        package = folder / "pack"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        for name, source in sources.items():
            path = package.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(source)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(folder))
            importlib.invalidate_caches()
            code_digest.cache_clear()
            for module in [name for name in sys.modules if name.split(".")[0] == "pack"]:
                del sys.modules[module]
            return code_digest("pack.stage")

    yield digest
    code_digest.cache_clear()


STAGE = "from pack.helper import double\n\ndef run(x):\n    return double(x)\n"
HELPER = "def double(x):\n    return 2 * x\n"


def test_code_at_another_place_has_the_same_digest(digest_of):
    assert digest_of(stage=STAGE, helper=HELPER) == digest_of(stage=STAGE, helper=HELPER)


def test_comments_blank_lines_and_formatting_do_not_count(digest_of):
    dressed = (
        "# why\nfrom pack.helper import (\n    double,\n)\n\n\ndef run( x ):\n\n    return double(x)  # so\n"
    )
    assert digest_of(stage=dressed, helper=HELPER) == digest_of(stage=STAGE, helper=HELPER)


@pytest.mark.parametrize(
    "stage",
    [
        "from pack.helper import double\n\ndef run(x):\n    return double(x) + 1\n",
        "from pack.helper import double\n\ndef run(y):\n    return double(y)\n",
    ],
)
def test_a_change_of_the_code_counts(digest_of, stage):
    assert digest_of(stage=stage, helper=HELPER) != digest_of(stage=STAGE, helper=HELPER)


@pytest.mark.parametrize(
    "imports",
    [
        "from pack.helper import double",
        "from pack import helper",
        "import pack.helper",
        "def late():\n    from pack.helper import double",
        "from pack.middle import helper",
        'BUILT_IN = {"double": "pack.helper:double"}',
    ],
)
def test_a_change_in_whatever_is_imported_counts(digest_of, imports):
    middle = "from pack import helper\n"
    before = digest_of(stage=imports, helper=HELPER, middle=middle)
    assert digest_of(stage=imports, helper=HELPER.replace("2", "3"), middle=middle) != before


def test_a_module_that_is_not_imported_does_not_count(digest_of):
    before = digest_of(stage=STAGE, helper=HELPER, other="x = 1")
    assert digest_of(stage=STAGE, helper=HELPER, other="x = 2") == before


def test_imports_in_a_circle_end(digest_of):
    circle = HELPER + "\ndef late():\n    from pack import stage\n"
    assert digest_of(stage=STAGE, helper=circle) != digest_of(stage=STAGE, helper=HELPER)


def test_text_that_only_looks_like_a_module_is_no_import(digest_of):
    assert digest_of(stage='x = "pack.nowhere:Class"') == digest_of(stage='x = "pack.nowhere:Class"')


def _digests_in(folder):
    """The digests of the stages that load a problem, in a copy of this project."""
    stages = ("tasks.sft.stage", "tasks.evaluate", "tasks.augment.stage", "tasks.filter.stage")
    program = f"from tasks.core.digests import code_digest\nprint(*map(code_digest, {stages}), sep='\\n')"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.split()


@pytest.mark.parametrize("address", BUILT_IN.values())
def test_a_change_in_a_built_in_problem_is_a_change_of_every_stage_that_loads_one(tmp_path, address):
    shutil.copytree(Path(tasks.__file__).parent, tmp_path / "tasks")
    before = _digests_in(tmp_path)
    problem = tmp_path.joinpath(*address.split(":")[0].split(".")).with_suffix(".py")
    problem.write_text(problem.read_text() + "\nCHANGED = True\n")
    assert [old == new for old, new in zip(before, _digests_in(tmp_path), strict=True)] == [False] * 4


def test_a_change_of_a_page_template_is_a_change_of_the_report_alone(tmp_path):
    shutil.copytree(Path(tasks.__file__).parent, tmp_path / "tasks")
    program = "from tasks.core.digests import code_digest\nprint(code_digest('tasks.report.stage'))"

    def report():
        command = [sys.executable, "-P", "-c", program]
        return subprocess.run(
            command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, check=True
        ).stdout

    before, others = report(), _digests_in(tmp_path)
    template = tmp_path / "tasks" / "report" / "page.html.jinja"
    template.write_text(template.read_text() + "<p>changed</p>")
    assert report() != before
    assert _digests_in(tmp_path) == others


def _folder(path):
    (path / "b").mkdir(parents=True)
    (path / "a.txt").write_text("one")
    (path / "b" / "c.txt").write_text("two")
    return path


def test_a_folder_has_one_digest_wherever_it_lies(tmp_path):
    first = _folder(tmp_path / "first")
    shutil.copytree(first, tmp_path / "second")
    assert folder_digest(first) == path_digest(tmp_path / "second")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a.txt").write_text("One"),
        lambda folder: (folder / "a.txt").rename(folder / "d.txt"),
        lambda folder: (folder / "b" / "c.txt").unlink(),
        lambda folder: (folder / "b" / "empty").touch(),
    ],
)
def test_content_names_and_number_of_files_count(tmp_path, change):
    folder = _folder(tmp_path / "folder")
    before = folder_digest(folder)
    change(folder)
    assert folder_digest(folder) != before


def test_the_digest_of_a_file_is_its_sha_256(tmp_path):
    (tmp_path / "abc").write_text("abc")
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "none").touch()
    assert (
        file_digest(tmp_path / "none") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


def test_a_file_changed_after_it_was_hashed_is_hashed_again(tmp_path):
    path = tmp_path / "file"
    path.write_text("one")
    before = file_digest(path)
    path.write_text("two")
    os.utime(path, ns=(0, 1))
    assert file_digest(path) != before
