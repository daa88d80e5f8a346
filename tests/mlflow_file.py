"""MLflow in a SQLite file for a test: a copy of one that is made once, since making its tables takes seconds."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

from tasks.core.tracking import Tracking, TrackingConfig


def new_mlflow(folder: Path) -> str:
    """The address of an empty MLflow in a folder; what runs keep lies beneath LOOPWRIGHT_HOME."""
    shutil.copy(_made_once(), folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"


@cache
def _made_once() -> Path:
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    file = Path(tempfile.mkdtemp(dir=_home())) / "mlflow.db"
    engine = create_sqlalchemy_engine(f"sqlite:///{file}")
    _initialize_tables(engine)
    engine.dispose()
    return file


def _home() -> Path:
    """The session's own folder, which goes with it."""
    from tasks.core.settings import home

    home().mkdir(parents=True, exist_ok=True)
    return home()


def new_tracking(folder: Path) -> Tracking:
    """An empty MLflow in a folder."""
    return Tracking(TrackingConfig(uri=new_mlflow(folder)))
