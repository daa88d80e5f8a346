"""TRL 1.12.0's PPO as one side of the benchmark: `python -m tests.benchmarks.ppo_sides.peer BASE STEPS MICRO [FOLDER]`.

With FOLDER it begins with the weights in it, makes one step and leaves there all that it has computed.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.ppo_sides import witness
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
)


def make_trainer(base: str, steps: int, micro: int, callback: Any, output: str) -> Any:
    """The trainer with a full model for value and reward and an adapter for the policy, SmolLM2-135M each."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from tasks.sft.adapter import AdapterConfig, lora_config

    torch.manual_seed(0)
    tokenizer = load_tokenizer(base)
    policy = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
        for _ in range(2)
    )
    arguments = PPOConfig(
        output_dir=output,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=len(QUESTIONS) // micro,
        num_mini_batches=1,
        local_rollout_forward_batch_size=len(QUESTIONS),
        total_episodes=len(QUESTIONS) * steps,
        num_ppo_epochs=EPOCHS,
        response_length=NEW_TOKENS,
        temperature=1.0,
        learning_rate=LEARNING_RATE,
        adam_epsilon=ADAM_EPSILON,
        weight_decay=0.0,
        lr_scheduler_type="linear",
        kl_coef=KL_COEFFICIENT,
        cliprange=CLIP,
        cliprange_value=VALUE_CLIP,
        vf_coef=VALUE_COEFFICIENT,
        gamma=GAMMA,
        lam=LAM,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        num_sample_generations=0,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=0,
    )
    return PPOTrainer(
        args=arguments,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,  # the policy without its adapter
        reward_model=reward,
        train_dataset=Dataset.from_dict({"input_ids": prompts(tokenizer)}),
        value_model=value,
        callbacks=[callback],
        peft_config=lora_config(AdapterConfig(), policy, field=""),
    )


def main() -> None:
    """Train, a step a turn."""
    base, steps, micro = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    folder = Path(sys.argv[4]) if len(sys.argv) > 4 else None
    turns = Turns()
    import trl
    from transformers import TrainerCallback

    if trl.__version__ != "1.12.0":
        sys.exit(f"this is TRL {trl.__version__} and not 1.12.0")

    class Pace(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            turns.tell(loaded_gb=peak_gb())
            turns.wait()

        def on_step_end(self, arguments: Any, state: Any, *_: Any, **__: Any) -> None:
            turns.done()
            if folder:
                witness.save_computed(folder)
            if state.global_step < steps:
                turns.wait()

    from trl.experimental.ppo import PPOTrainer  # noqa: F401

    turns.tell(imported_gb=peak_gb())
    with tempfile.TemporaryDirectory() as output:
        trainer = make_trainer(base, steps, micro, Pace(), output)
        if folder:
            witness.begin_with(trainer, folder)
        trainer.train()


if __name__ == "__main__":
    main()
