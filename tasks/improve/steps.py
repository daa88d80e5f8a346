"""The Improve steps of one iteration: filter, fine-tune, and look whether the held-out reward still rises."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.core.references import DatasetRef, ModelRef
from tasks.improve import stage
from tasks.improve.config import ImproveConfig, weighting
from tasks.improve.figures import Selection
from tasks.improve.stage import SelectInputs
from tasks.rewards.scoring import Scoring
from tasks.sft.stage import TrainingResult
from tasks.student import Student


@dataclass(frozen=True)
class Policy:
    """A policy in the loop."""

    model: ModelRef
    steps: int = 0
    """Optimizer steps between the base model and it."""
    reward: float | None = None
    """Mean reward of its answers to the validation rows; None without any."""


@dataclass
class Improved:
    """Where the steps of an iteration led."""

    policy: Policy
    kept: DatasetRef | None = None
    """The rows of the last step that was taken; None when no step was."""
    trained: list[TrainingResult] = field(default_factory=list)
    """The trainings of the steps taken."""
    selections: list[Selection] = field(default_factory=list)
    stopped: str = ""
    """Why not all steps were taken."""

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        figures = {
            "train/steps": float(sum(training.steps for training in self.trained)),
            "improve/steps_taken": float(len(self.trained)),
            "data/kept": float(self.kept.rows if self.kept else 0),
        }
        if self.trained:
            figures["train/loss"] = self.trained[-1].loss
        if self.policy.reward is not None:
            figures["reward/validation"] = self.policy.reward
        last = self.selections[len(self.trained) - 1 if self.trained else 0]
        return figures | {
            "data/wrong": float(last.prompts_without),
            "reward/mean": last.before.reward,
            "reward/kept": last.after.reward,
            "samples/distinct_1": last.before.distinct_1,
            "samples/distinct_2": last.before.distinct_2,
            "samples/self_similarity": last.before.self_similarity,
            "samples/words": last.before.words,
        }


@dataclass(frozen=True)
class Improvement:
    """How a policy is improved on samples: the same in every iteration."""

    student: Student
    config: ImproveConfig
    """With everything filled in that is left to the method (`tasks.improve.config.planned`)."""
    scoring: Scoring
    starts: Mapping[str, Policy]
    """What `base` and `warm` stand for in `config.start`."""
    originals: DatasetRef | None = None
    """The scored training rows, where they are mixed in."""
    validation: DatasetRef | None = None

    def improve(self, policy: Policy, samples: DatasetRef, *, asked: int, useless: str = "") -> Improved:
        """Take the steps, from `policy` on, until one brings nothing; none where the samples are `useless`, for the
        reason given (a policy that went beyond what its reward can measure). `asked` prompts were to be answered.

        A step without a row to train on, or (`stop_on_reward`) one that does not raise the held-out reward, ends the
        iteration with the policy of the step before it, as ReST stops its Improve loop (section 3).
        """
        run, result = self.student.run, Improved(policy)
        rows = [samples, *([self.originals] if self.originals else [])]
        rate = self.config.learning_rate or self.student.training.learning_rate
        weighted = weighting(self.config)
        shared = {"asked": asked, "problem": self.student.problem} | self._room()
        for number, level in enumerate(self.config.levels):
            name = f"step {number + 1}, {self._words(level)}"
            inputs = SelectInputs(rows=rows, level=level, **shared)
            chosen = run.stage(stage.STAGE, self.config, inputs, label=f"select ({name})")
            selection = chosen.selection.model_copy(update={"taken": False})
            result.selections.append(selection)
            if useless:
                result.stopped = useless
                break
            if not chosen.kept.rows:
                which = "no sample that fits" if "long" in selection.rejected else "no sample"
                result.stopped = f"{which} passes {self._words(level)}"
                break
            changes = {"learning_rate": rate * self.config.decay**number, "weighting": weighted}
            student = replace(self.student, training=self.student.training.model_copy(update=changes))
            start = self.starts.get(self.config.start, result.policy)
            trained = student.train(chosen.kept, start=start.model, label=f"train ({name})")
            selection.reward = self.held_out(trained.model, name)
            if self.config.stop_on_reward and _not_risen(result.policy.reward, selection.reward):
                result.stopped = f"the held-out reward did not rise at {self._words(level)}"
                break
            selection.taken, result.kept = True, chosen.kept
            result.policy = Policy(trained.model, start.steps + trained.steps, selection.reward)
            result.trained.append(trained)
        return result

    def held_out(self, policy: ModelRef, name: str) -> float | None:
        """The mean reward of a policy's answers to the validation rows; None when there are none."""
        if self.validation is None:
            return None
        answered = self.student.test(policy, {"validation": self.validation}, label=f"validate ({name})")
        predictions = answered["validation"].predictions
        return self.scoring.of_answers(predictions, self.validation, label=f"reward ({name})").mean

    def _room(self) -> dict[str, Any]:
        """What rows have to fit into, where the training would leave out those that do not: when none did, it would end
        the run and not the iteration."""
        training = self.student.training
        if training.too_long == "refuse":
            return {}
        return {"model": self.student.base, "max_length": training.max_length}

    def _words(self, level: float) -> str:
        words = {"threshold": "reward above {:g}", "percentile": "percentile {:g}", "top_n": "best {:g}"}
        return words[self.config.by].format(level)


def _not_risen(before: float | None, after: float | None) -> bool:
    return before is not None and after is not None and after <= before
