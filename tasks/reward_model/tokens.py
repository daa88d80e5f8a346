"""The tokens a reward model reads: those a policy is prompted with, those it writes, and the end of its turn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.core.errors import UserError
from tasks.core.models import end_of_turn, render
from tasks.reward_model.config import RewardTrainingConfig
from tasks.reward_model.pairs import Preference

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def answer_tokens(tokenizer: "PreTrainedTokenizerBase", answer: str) -> list[int]:
    """The ids of an answer and of the end of the turn, where the reward is read; an empty answer is that end alone."""
    return [*tokenizer(answer, add_special_tokens=False)["input_ids"], end_of_turn(tokenizer)]


def fitted(prompt: Sequence[int], answer: Sequence[int], length: int) -> list[int]:
    """Prompt and answer in at most `length` tokens: what does not fit goes at the beginning, of the prompt first."""
    return [*prompt, *answer][-length:]


def padding_token(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The id to pad with. It never ends a turn: transformers reads the reward at the last token that is no padding,
    which with the end of the turn as padding would be the one before it."""
    end = end_of_turn(tokenizer)
    known = [tokenizer.pad_token_id, *tokenizer.all_special_ids, 0, 1]
    return next(token for token in known if token is not None and token != end)


def tokenise_pairs(
    config: RewardTrainingConfig, tokenizer: "PreTrainedTokenizerBase", pairs: Sequence[Preference]
) -> tuple[list[dict[str, list[int]]], int]:
    """`chosen_ids` and `rejected_ids` of each pair, and how many pairs were left out because an answer does not fit.

    A pair that is longer than `max_length` loses the beginning of its prompt, the same on both sides. Raises UserError
    for an answer that does not fit (`too_long: refuse`), and when no pair is left.
    """
    rows = []
    for pair in pairs:
        chosen, rejected = answer_tokens(tokenizer, pair.chosen), answer_tokens(tokenizer, pair.rejected)
        longest = max(len(chosen), len(rejected))
        if longest >= config.max_length:
            if config.too_long == "refuse":
                raise UserError(
                    f"an answer of pair {pair.id} has {longest} tokens",
                    field="reward_model.max_length",
                    mend=f"raise it above {longest} (now {config.max_length}), or leave such pairs out with "
                    "--reward_model.too_long=drop",
                )
            continue
        prompt = render(tokenizer, pair.conversation)[-(config.max_length - longest) :]
        rows.append({"chosen_ids": prompt + chosen, "rejected_ids": prompt + rejected})
    if not rows:
        raise UserError(
            f"no pair has answers that fit into {config.max_length} tokens",
            field="reward_model.max_length",
            mend="raise it",
        )
    return rows, len(pairs) - len(rows)
