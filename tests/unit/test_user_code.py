"""A user's code is the module that is named and what it imports from beside it, and nothing else."""

from pathlib import Path

import pytest

from tasks.core.user_code import user_code_digest

FILES = {
    "mine/__init__.py": "from .rewards import brevity\n",
    "mine/rewards.py": "from mine import length as measured\nimport json\n\ndef brevity(*_): return measured.of()\n",
    "mine/length.py": "from ..beside import nothing\ndef of(): return 1\n",
    "mine/unused.py": "x = 1\n",
    "mine/deep/__init__.py": "",
    "mine/deep/one.py": "from . import two\nfrom .. import rewards\nimport beside\n",
    "mine/deep/two.py": "y = 1\n",
    "beside.py": "import mine.deep.one\n",
    "tasks/__init__.py": "",
    "tasks/ours.py": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "changed", "counts"),
    [
        ("mine", "mine/__init__.py", True),
        ("mine", "mine/rewards.py", True),
        ("mine", "mine/length.py", True),
        ("mine", "mine/unused.py", False),
        ("mine.deep.one", "mine/deep/two.py", True),
        ("mine.deep.one", "mine/length.py", True),  # the package above is imported with it
        ("mine.deep.one", "beside.py", True),
        ("beside", "mine/deep/two.py", True),
        ("beside", "mine/unused.py", False),
    ],
)
def test_what_is_imported_counts(folder: Path, module: str, changed: str, counts: bool) -> None:
    place = folder.joinpath(*module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    before = user_code_digest(module, file)
    (folder / changed).write_text(FILES[changed] + "z = 2\n")
    assert (user_code_digest(module, file) != before) is counts


def test_the_projects_own_code_is_left_to_the_stages(folder: Path) -> None:
    (folder / "beside.py").write_text("from tasks import ours\nimport tasks.ours\n")
    before = user_code_digest("beside", folder / "beside.py")
    (folder / "tasks/ours.py").write_text("changed = 1\n")
    assert user_code_digest("beside", folder / "beside.py") == before


def test_of_an_installed_package_the_package_alone_counts(folder: Path, tmp_path: Path) -> None:
    installed = folder.rename(tmp_path.parent / "site-packages")
    before = user_code_digest("mine.deep.one", installed / "mine/deep/one.py")
    (installed / "beside.py").write_text("another = 'package'\n")
    assert user_code_digest("mine.deep.one", installed / "mine/deep/one.py") == before
    (installed / "mine/deep/two.py").write_text("y = 2\n")
    assert user_code_digest("mine.deep.one", installed / "mine/deep/one.py") != before


def test_code_that_cannot_be_read_and_circles_end(folder: Path) -> None:
    (folder / "beside.py").write_text("import beside\nimport mine\nfrom ...... import far\n")
    assert len(user_code_digest("beside", folder / "beside.py")) == 64
    (folder / "beside.py").write_text("def broken(:\n")
    assert len(user_code_digest("beside", folder / "beside.py")) == 64
