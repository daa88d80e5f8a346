"""A stage as a Prefect task: cached by content, its progress shown, and fit to run wherever a task runner puts it."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from tasks.core.artifacts import artifact_key, log, progress_artifact
from tasks.core.config import Config
from tasks.core.errors import StageFailed, UserError
from tasks.core.interruption import interruptible
from tasks.core.launching.launch import LaunchConfig
from tasks.core.progress import Progress
from tasks.core.slots import gpu_slot
from tasks.core.stage import Report, Stage, compute, is_whole
from tasks.core.store import Store

C = TypeVar("C", bound=Config)
I = TypeVar("I", bound=BaseModel)  # noqa: E741 - config, inputs, result
R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class StageCall(Generic[C, I, R]):
    """One call of a stage. It can be pickled, so that a task runner may take it to another process or machine."""

    stage: Stage[C, I, R]
    config: C
    inputs: I
    key: str
    name: str
    """What the call is named in Prefect and in the terminal."""
    method: str
    store: Store
    launch: LaunchConfig
    group: str = ""
    """The calls that are interrupted together with this one, when they run in threads."""
    takes_slot: bool = True
    """Whether a call that loads a model waits for a GPU slot; a cluster places calls by itself."""

    def compute(self, on_event: Report | None = None) -> dict[str, Any]:
        """Compute the result, or find it, and return what Prefect records: its key, and how many seconds computing it
        took, None when it was found."""
        seconds: list[float] = []
        with interruptible(self.group):
            progress = Progress(
                self.name, progress_artifact(artifact_key(f"{self.method} {self.name}"), self.name)
            )

            def report(event: dict[str, Any]) -> None:
                progress(event)
                if "seconds" in event:
                    seconds.append(event["seconds"])
                if on_event:
                    on_event(event)

            def say(words: str) -> None:
                log(f"{self.name}: {words}")
                progress.say(words)

            begun = time.monotonic()
            try:
                compute(
                    self.stage,
                    self.config,
                    self.inputs,
                    self.store,
                    self.launch,
                    report,
                    lambda: gpu_slot(say) if self.takes_slot else nullcontext(),
                )
            except BaseException:
                progress.close("failed")
                raise
            progress.close()
            log(f"{self.name}: {time.monotonic() - begun:.1f} s")
        return {"key": self.key, "seconds": seconds[0] if seconds else None}

    def as_task(self, records: Any, retries: int, on_event: Report | None = None) -> Any:
        """The Prefect task, which takes no parameters; `records` is where Prefect keeps what `compute` returns.

        With `on_event` the task can run in this process only.
        """
        from prefect import task

        call, cache_key = self, f"{self.stage.name}-{self.key}"

        def work() -> dict[str, Any]:
            return call.compute(on_event)

        decorate: Callable[[Any], Any] = task(
            name=self.stage.name,
            task_run_name=self.name,
            persist_result=True,
            result_serializer="json",
            result_storage=records,
            cache_key_fn=lambda context, parameters: cache_key,
            refresh_cache=not is_whole(self.store, self.stage, self.key),
            retries=retries,
            retry_delay_seconds=2,
            retry_condition_fn=_crashed,
        )
        return decorate(work)

    def result(self) -> R:
        """The result of a call that has ended: from the manifest and not from Prefect's record, since the manifest
        knows where the store lies now. Raises UserError where it is not there, as another machine has it."""
        manifest = self.store.find(self.stage.name, self.key)
        if manifest is None:
            raise UserError(
                f"{self.name} has ended, and its result is not in {self.store.root} on this machine",
                field="store",
                mend="a cluster needs a store that all its machines reach: s3://…, or a shared folder",
            )
        return self.stage.result.model_validate(manifest.result)


def _crashed(task: Any, run: Any, state: Any) -> bool:
    """A user's mistake, a lack of memory or a time-out comes back the same; a crash or a kill need not."""
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, StageFailed) and failure.passing
