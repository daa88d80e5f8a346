"""The model registry in MLflow: versions with what decided about them, the aliases `champion` and `previous`, and the
newest versions of the training set.

Two aliases cannot be set at once. What they are to become is written as one tag first and taken away last, and every
use of the registry finishes what it finds written: a process may be killed anywhere.

The newest data versions stand as tags of the registered model, one tag per version and not one tag for all: two runs
that end at once each add their own, none overwrites the other's, and the next run joins them. They lie with the
model, so that every machine that reaches MLflow finds them.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tasks.core.errors import UserError
from tasks.core.launching.job import exclusive
from tasks.core.references import ModelRef
from tasks.core.settings import home
from tasks.core.tracking import Tracking
from tasks.promotion.registered_version import (
    DONE,
    FIELD,
    MODEL,
    SETTLED,
    VERDICT,
    WORK,
    RegisteredVersion,
    read_version,
    verdict,
)

CHAMPION, PREVIOUS = "champion", "previous"

_INTENT, _BY, _ROLLBACK = "aliases.intended", "by", "rollback"
_HEAD = "data.head."
_CHARACTERS_REFUSED = "/:'"  # MLflow's own, and the quote of its conditions
_MOST_DESCRIPTION = 5000  # what MLflow's column holds


class ModelRegistry:
    """One registered model."""

    def __init__(self, tracking: Tracking, name: str) -> None:
        check_name(name)
        self.name, self._client = name, tracking.client
        self._lock = hashlib.sha256(f"{tracking.uri} {name}".encode()).hexdigest()[:32]

    def create(self) -> None:
        """Make the registered model unless it exists."""
        from mlflow.exceptions import MlflowException

        if self._registered() is None:
            try:
                self._client.create_registered_model(self.name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another run was quicker
                    raise

    def at(self, alias: str) -> RegisteredVersion | None:
        """The version an alias names, once whatever was begun with the aliases is finished; None for none."""
        self._finish()
        return self._at(alias)

    def unfinished(self) -> list[RegisteredVersion]:
        """Versions whose run ended between registration and `finish`, the oldest first."""
        return [one for one in self.versions() if WORK in one.tags and DONE not in one.tags]

    def finish(self, version: RegisteredVersion) -> None:
        """Say that all that follows from a version has been done."""
        self.tag(version, DONE, "true")

    def decided(self, work: str) -> RegisteredVersion | None:
        """The version that was registered for a piece of work (`work` is its digest), the first one of several."""
        found = [one for one in self.versions() if one.tags.get(WORK) == work]
        return found[0] if found else None

    def versions(self) -> list[RegisteredVersion]:
        """All versions, the oldest first."""
        found: list[RegisteredVersion] = []
        token = None
        while True:
            page = self._client.search_model_versions(f"name = '{self.name}'", page_token=token)
            found += [read_version(entity) for entity in page]
            token = page.token
            if not token:
                return sorted(found, key=lambda one: int(one.number))

    def again(self, version: RegisteredVersion) -> RegisteredVersion:
        """A version as it is now."""
        return read_version(self._client.get_model_version(self.name, version.number))

    def register(
        self,
        model: ModelRef,
        *,
        work: str,
        promoted: bool,
        parent: str,
        run_id: str,
        source: str,
        tags: Mapping[str, str],
    ) -> RegisteredVersion:
        """Register a model with all that was decided about it, in one step; the aliases follow with `settle`.

        `source` is where, among the run's artifacts, the folder lies that MLflow loads. A piece of work that was
        registered before, by a run that was killed or one beside this, is not registered twice.
        """
        if (existing := self.decided(work)) is not None:
            return existing
        base = model.base
        facts = {
            WORK: work,
            MODEL: model.model_dump_json(),
            VERDICT: verdict(promoted=promoted, parent=parent),
            "model.uri": model.uri,
            "model.digest": model.digest,
            "base.uri": base.uri if base else "",
            "base.digest": base.digest if base else "",
        }
        artifacts = self._client.get_run(run_id).info.artifact_uri
        entity = self._client.create_model_version(
            self.name, f"{artifacts.rstrip('/')}/{source}", run_id=run_id, tags=dict(tags) | facts
        )
        return read_version(entity)

    def settle(self, version: RegisteredVersion) -> bool:
        """Let the aliases follow the decision about a version; returns False when the champion is no longer the one it
        was compared with, and the decision is void. Safe to repeat: a settled version is left alone.

        Of runs with one home, one settles at a time. Those of several machines can still meet between two of MLflow's
        calls: it has none that changes an alias only if it is what it was.
        """
        with self._alone():
            champion = self.at(CHAMPION)
            if version.settled:
                return True
            number = champion.number if champion else ""
            if version.promoted and number != version.number:
                if number != version.parent:
                    return False
                self._set({CHAMPION: version.number} | ({PREVIOUS: number} if number else {}))
            self._client.set_model_version_tag(self.name, version.number, SETTLED, "true")
        return True

    def redecide(
        self, version: RegisteredVersion, *, promoted: bool, parent: str, tags: Mapping[str, str]
    ) -> RegisteredVersion:
        """Record another decision about a version whose first one is void. The verdict, one tag, is written last: a
        kill before it leaves the first one, as void as it was."""
        for name, value in {**tags, VERDICT: verdict(promoted=promoted, parent=parent)}.items():
            self._client.set_model_version_tag(self.name, version.number, name, value)
        return self.again(version)

    def rollback(self) -> tuple[RegisteredVersion, RegisteredVersion]:
        """Swap `champion` and `previous`; returns the champion that is now and the one that was.

        Raises UserError when there is no previous champion.
        """
        if self._registered() is None:
            raise UserError(
                f"there is no registered model {self.name}", field=FIELD, mend=self._names_there_are()
            )
        with self._alone():
            interrupted = self._intention().get(_BY) == _ROLLBACK  # finishing it is all that is wanted
            now, before = self.at(CHAMPION), self.at(PREVIOUS)
            if now is None or before is None:
                raise UserError(
                    f"{self.name} has no previous champion to go back to",
                    field=FIELD,
                    mend="there is one from the second promotion on",
                )
            if interrupted:
                return now, before
            self._set({CHAMPION: before.number, PREVIOUS: now.number, _BY: _ROLLBACK})
        return before, now

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One change of the aliases at a time, of all processes that share `LOOPWRIGHT_HOME`."""
        folder = home() / "registry" / self._lock
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder):
            yield

    def describe(self, version: RegisteredVersion, text: str) -> None:
        """Show a text beside a version; MLflow keeps its first 5000 characters."""
        if len(text) > _MOST_DESCRIPTION:
            text = text[: _MOST_DESCRIPTION - 40].rpartition("\n")[0] + "\n\n(the rest is in the artifact)\n"
        self._client.update_model_version(self.name, version.number, text)

    def tag(self, version: RegisteredVersion, name: str, value: str) -> None:
        """Set a tag of a version."""
        self._client.set_model_version_tag(self.name, version.number, name, value)

    def heads(self) -> dict[str, str]:
        """The newest data versions: their JSON by their digests, in the order of these."""
        registered = self._registered()
        tags = registered.tags if registered else {}
        return {
            name.removeprefix(_HEAD): value for name, value in sorted(tags.items()) if name.startswith(_HEAD)
        }

    def advance(self, digest: str, value: str, after: Iterable[str]) -> None:
        """Make a data version a newest one, in the place of those whose digests are `after`, which it contains.

        The new one is written first: what a kill leaves between the two is joined without loss.
        """
        self._client.set_registered_model_tag(self.name, _HEAD + digest, value)
        for older in set(after) - {digest}:
            self._client.delete_registered_model_tag(self.name, _HEAD + older)

    def _at(self, alias: str) -> RegisteredVersion | None:
        registered = self._registered()
        number = registered.aliases.get(alias) if registered else None
        return read_version(self._client.get_model_version(self.name, number)) if number else None

    def _set(self, intended: dict[str, str]) -> None:
        self._client.set_registered_model_tag(self.name, _INTENT, json.dumps(intended, sort_keys=True))
        self._finish()

    def _intention(self) -> dict[str, str]:
        registered = self._registered()
        intended: dict[str, str] = json.loads(registered.tags.get(_INTENT, "{}")) if registered else {}
        return intended

    def _finish(self) -> None:
        intended = self._intention()
        for alias in intended.keys() - {_BY}:
            self._client.set_registered_model_alias(self.name, alias, intended[alias])
        if intended:
            self._client.delete_registered_model_tag(self.name, _INTENT)

    def _registered(self) -> Any:
        """MLflow's entity, or None; asking by search, since asking by name is an error where there is none."""
        found = self._client.search_registered_models(f"name = '{self.name}'")
        return found[0] if found else None

    def _names_there_are(self) -> str:
        names = [one.name for one in self._client.search_registered_models(max_results=20)]
        return f"there are: {', '.join(names)}" if names else "`retrain` makes one with its first run"


def check_name(name: str) -> None:
    """Raise UserError for a name that MLflow would not take."""
    if name.strip() in ("", ".", "..") or any(character in name for character in _CHARACTERS_REFUSED):
        raise UserError(
            f"{name!r} cannot name a registered model", field=FIELD, mend="give a name without / : and '"
        )
