"""Our PPO as one side of the benchmark: `python -m tests.benchmarks.ppo_sides.ours BASE REWARD VALUE STEPS MICRO`.

VALUE is `trunk` or `adapter`, REWARD the folder of an adapter that `weights` has written.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from tasks.core.examples import make_example
from tasks.ppo.config import PPOConfig
from tasks.ppo.roles_config import RolesConfig
from tests.benchmarks.ppo_sides.common import (
    ADAM_EPSILON,
    CLIP,
    EPOCHS,
    GAMMA,
    KL_COEFFICIENT,
    LAM,
    LEARNING_RATE,
    NEW_TOKENS,
    QUESTIONS,
    VALUE_CLIP,
    VALUE_COEFFICIENT,
    Turns,
    load_tokenizer,
    peak_gb,
    prompts,
    reference,
)


def settings(steps: int, micro: int) -> PPOConfig:
    """The peer's settings by our names."""
    return PPOConfig(
        steps=steps,
        batch_size=len(QUESTIONS),
        minibatch_size=len(QUESTIONS),
        micro_batch_size=micro,
        epochs=EPOCHS,
        max_new_tokens=NEW_TOKENS,
        policy_learning_rate=LEARNING_RATE,
        value_learning_rate=LEARNING_RATE,
        adam_epsilon=ADAM_EPSILON,
        clip=CLIP,
        value_clip=VALUE_CLIP,
        value_coefficient=VALUE_COEFFICIENT,
        kl_coefficient=KL_COEFFICIENT,
        gamma=GAMMA,
        lam=LAM,
        target_kl=0.0,
    )


def main() -> None:
    """Train, a step a turn."""
    base, reward, value, steps, micro = sys.argv[1:]
    turns = Turns()
    import torch  # noqa: F401
    import transformers  # noqa: F401
    from peft import PeftModel  # noqa: F401

    from tasks.ppo.full_models import load_roles
    from tasks.ppo.sampling import PolicySampler
    from tasks.ppo.scores import by_role
    from tasks.ppo.training import Prompt, train_policy
    from tasks.sft.trainer_arguments import be_deterministic

    turns.tell(imported_gb=peak_gb())
    be_deterministic()
    kind: Literal["trunk", "adapter"] = "trunk" if value == "trunk" else "adapter"
    ref = reference(base)
    roles = load_roles(RolesConfig(value=kind), ref, reference(reward, ref))
    tokenizer = load_tokenizer(base)
    roles.model.generation_config.eos_token_id = tokenizer.eos_token_id
    sampler = PolicySampler(roles, tokenizer, max_new_tokens=NEW_TOKENS, seed=0)
    asked = [
        Prompt(make_example(text, ""), ids) for text, ids in zip(QUESTIONS, prompts(tokenizer), strict=True)
    ]
    turns.tell(loaded_gb=peak_gb())

    def report(event: dict[str, Any]) -> None:
        if "step" in event:
            turns.done()
            if event["step"] < int(steps):
                turns.wait()

    with tempfile.TemporaryDirectory() as folder:
        turns.wait()
        train_policy(
            settings(int(steps), int(micro)),
            roles,
            sampler,
            by_role(roles),
            asked,
            Path(folder),
            1_000_000,
            report,
        )


if __name__ == "__main__":
    main()
