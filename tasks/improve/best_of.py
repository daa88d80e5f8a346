"""Best of n: what a policy reaches without any training when the best of n samples of a prompt could be told."""

from statistics import fmean

from tasks.core.examples import read_examples
from tasks.core.references import DatasetRef, ModelRef
from tasks.grow import stage as grow
from tasks.grow.config import GrowConfig
from tasks.grow.stage import GrowInputs
from tasks.rewards.scoring import Scoring


def best_of(scoring: Scoring, config: GrowConfig, policy: ModelRef, prompts: DatasetRef) -> float:
    """Mean over all prompts of the best reward among `config.best_of` answers each, drawn as Grow draws them.

    A prompt without an answer counts as 0. With a reward of 0 or 1 this is pass@n (Chen et al. 2021, section 2.1).
    """
    samples = config.best_of
    inputs = GrowInputs(model=policy, prompts=prompts, problem=scoring.problem, first=0, count=samples)
    drawn = scoring.run.stage(grow.STAGE, config.drawing(), inputs, label=f"best of {samples}").samples
    best = {prompt.id: 0.0 for prompt in read_examples(prompts)}
    for sample in read_examples(scoring.score(drawn, label=f"score (best of {samples})").rows):
        prompt = str(sample.parent)
        best[prompt] = max(best[prompt], sample.reward or 0.0)
    return fmean(best.values())
