"""What is kept, whatever else is removed."""

from pydantic import Field

from tasks.core.config import Config
from tasks.core.credentials import Credential
from tasks.core.tracking import TrackingConfig


class PruneConfig(Config):
    """Remove from the artifact store what no registered model and no recent run refers to."""

    store: str = ""
    """The artifact store: a folder or `s3://…`; empty takes LOOPWRIGHT_STORE, or `.loopwright/store`."""
    credentials: tuple[Credential, ...] = ()
    """Prefect's blocks with the store's keys, as in the flows."""
    tracking: TrackingConfig = TrackingConfig()
    """The MLflow that knows runs and registered models; all its experiments count."""
    age_days: float = Field(30.0, ge=0.0, le=36500.0)
    """What was written or used in so many days is kept."""
    recent_runs: int = Field(20, ge=0, le=1_000_000)
    """What the newest so many runs used is kept, however old."""
