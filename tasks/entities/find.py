"""One interface to everything that finds names in texts."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from tasks.core.digests import folder_digest
from tasks.entities.config import EntitiesConfig
from tasks.entities.gazetteer import Gazetteer, read_names
from tasks.entities.spans import Span
from tasks.entities.taggers import SpacyPipeline, TokenClassifier, check_tagger


class EntityFinder(Protocol):
    """Finds names in texts."""

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """Of each text the places of its names, in any order; they may overlap (`resolve` decides then)."""
        ...


def load_finder(config: EntitiesConfig) -> EntityFinder | None:
    """The finder that a configuration names; None where entities are given with the rows."""
    if config.by == "gazetteer":
        return Gazetteer(read_names(config.names), ignore_case=config.ignore_case)
    if config.by == "token_classification":
        return TokenClassifier(config.model, least_score=config.least_score, batch_size=config.batch_size)
    if config.by == "spacy":
        return SpacyPipeline(config.model, batch_size=config.batch_size)
    return None


def check(config: EntitiesConfig) -> None:
    """Raise UserError for names or a model that cannot be had."""
    if config.by == "gazetteer":
        read_names(config.names)
    if config.by in ("token_classification", "spacy"):
        check_tagger(config.by, config.model)


def content(config: EntitiesConfig) -> str:
    """Digest of the names, or of the model in a folder, for cache keys; empty where the configuration says it all."""
    if config.by == "gazetteer":
        return sha256("\n".join(sorted(read_names(config.names))).encode()).hexdigest()
    if config.by in ("token_classification", "spacy") and Path(config.model).is_dir():
        return folder_digest(Path(config.model))
    return ""
