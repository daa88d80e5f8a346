"""What both sides of the benchmark share: the prompts, the settings, and how a side takes turns with the others."""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from tasks.core.digests import folder_digest
from tasks.core.references import ModelRef

QUESTIONS = (
    "Write a short story about a fox who learns to swim across a river.",
    "Why do leaves change their colour in the autumn months?",
    "Explain to a child how an aeroplane manages to stay up in the air.",
    "Give me three good reasons to get up early in the morning.",
    "What should I cook for dinner with rice, eggs and spinach?",
    "Describe the city of Lisbon to somebody who has never been there.",
    "How can I learn to play the guitar without a teacher at home?",
    "Name some animals that sleep through the whole winter, and say why.",
)
"""A batch: every step answers all of them, 13 or so tokens each."""
NEVER = "<reponame>"
"""A token that the model never writes. As the end of a response it makes all responses equally long, and as padding
it stands in none."""
EPOCHS, NEW_TOKENS, MICRO = 4, 24, 8
CLIP, VALUE_CLIP, VALUE_COEFFICIENT, KL_COEFFICIENT, GAMMA, LAM = 0.2, 0.2, 0.1, 0.05, 1.0, 0.95
LEARNING_RATE, ADAM_EPSILON = 1e-4, 1e-5


class Turns:
    """A side's end of the pipe to the benchmark: it works when it is told to, and says how long that took.

    Whatever a library prints goes to standard error.
    """

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._begun = self._cpu = 0.0

    def tell(self, **what: Any) -> None:
        """A line of JSON to the benchmark."""
        print(json.dumps(what), file=self._answers, flush=True)

    def wait(self) -> None:
        """Sleep until it is this side's turn. Ends the process when the benchmark has ended."""
        if not sys.stdin.readline():
            sys.exit(0)
        self._begun, self._cpu = time.perf_counter(), time.process_time()

    def done(self) -> None:
        """Tell the seconds since the turn began, by the clock and of the processor, and the most memory so far."""
        self.tell(
            seconds=time.perf_counter() - self._begun,
            cpu_s=time.process_time() - self._cpu,
            peak_gb=peak_gb(),
        )


def peak_gb() -> float:
    """The most memory of this process so far, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def load_tokenizer(folder: str) -> Any:
    """The tokenizer of `folder`, for which NEVER is padding and end."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side, tokenizer.pad_token, tokenizer.eos_token = "left", NEVER, NEVER
    return tokenizer


def prompts(tokenizer: Any) -> list[list[int]]:
    """The token ids of the questions."""
    return [tokenizer(question)["input_ids"] for question in QUESTIONS]


def reference(folder: str, base: ModelRef | None = None) -> ModelRef:
    """A folder as a model."""
    return ModelRef(uri=folder, digest=folder_digest(Path(folder)), base=base)
