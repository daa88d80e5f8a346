"""What is sent to a rewarding service, and what can be read from its answer."""

import json
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.core.generators.base import Prompt
from tasks.rewards.judgement import fit

_LONGEST_EXCERPT = 200


class _Scores(BaseModel):
    model_config = ConfigDict(strict=True)  # "0.5" is no number, and true is none either

    scores: list[float]


def request_body(prompts: Sequence[Prompt], completions: Sequence[str]) -> bytes:
    """The body of a request to score the completions of as many prompts.

    It is ASCII: half of a surrogate pair, which UTF-8 cannot hold, may stand in a text.
    """
    inputs = [
        {"prompt": list(prompt), "completion": completion}
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    return json.dumps({"inputs": inputs}).encode("ascii")


def read_scores(content: bytes, count: int) -> list[float]:
    """The scores of `count` inputs, from the body of a successful response. Raises ValueError when it has another form,
    another number of scores, or one that is no number from 0 to 1."""
    try:
        scores = _Scores.model_validate_json(content).scores
    except ValidationError as error:
        text = content[: 4 * _LONGEST_EXCERPT].decode(errors="replace").strip()[:_LONGEST_EXCERPT]
        raise ValueError(f"the body is not of the form that is asked for: {text or '(empty)'}") from error
    if len(scores) != count:
        raise ValueError(f"it returned {len(scores)} score{'' if len(scores) == 1 else 's'} for {count}")
    judgements = [fit(score) for score in scores]
    if failed := [judgement.reason for judgement in judgements if judgement.failure]:
        raise ValueError(failed[0])
    return [judgement.reward for judgement in judgements]
