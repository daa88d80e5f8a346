"""Two policies answer held-out prompts, once each, sampled as in training; both answers are rewarded and judged."""

from dataclasses import replace

from tasks.core.config import Config
from tasks.core.references import DatasetRef, ModelRef
from tasks.grow import stage as grow
from tasks.grow.config import DrawConfig
from tasks.grow.stage import GrowInputs
from tasks.ppo.config import PPOConfig
from tasks.rewards.config import RewardConfig
from tasks.rewards.scoring import Scoring
from tasks.side_by_side import stage
from tasks.side_by_side.stage import SideBySideInputs, SideBySideResult


def compare_on_held_out(
    scoring: Scoring,
    judge: ModelRef | None,
    prompts: DatasetRef,
    start: ModelRef,
    policy: ModelRef,
    config: PPOConfig,
) -> SideBySideResult:
    """`scoring` is the reward that the policy learned from; `judge` another reward model, None for none."""
    run = scoring.run
    drawing = DrawConfig(
        temperature=config.temperature, max_new_tokens=config.max_new_tokens, seed=config.seed
    )
    # With nothing scored: a copy would hand on the rewards that the policy learned from.
    judging = replace(scoring, config=RewardConfig(by="model"), reward_model=judge, scored=[])
    rewarded, judged = [], []
    for name, model in (("start", start), ("policy", policy)):
        inputs = GrowInputs(
            model=model, prompts=prompts, problem=scoring.problem, first=0, count=1, keep_empty=True
        )
        drawn = run.stage(grow.STAGE, drawing, inputs, label=f"answer held-out prompts ({name})").samples
        rewarded.append(scoring.score(drawn, label=f"reward (held out, {name})").rows)
        if judge is not None:
            judged.append(judging.score(drawn, label=f"judge ({name})").rows)
    verdicts = {"start_judged": judged[0], "policy_judged": judged[1]} if judged else {}
    inputs_both = SideBySideInputs(prompts=prompts, start=rewarded[0], policy=rewarded[1], **verdicts)
    return run.stage(stage.STAGE, Config(), inputs_both, label="side by side")
