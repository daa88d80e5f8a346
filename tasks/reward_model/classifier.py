"""The network of a reward model: a language model's body with a head of one number in place of its vocabulary."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.models import Precision, four_bit_config, load_model, load_tokenizer, torch_dtype
from tasks.core.references import ModelRef
from tasks.core.store import fetch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HEAD = "score"
"""The head's name in every decoder of transformers. It begins at random, so it has to train."""


def load_classifier(
    ref: ModelRef, *, precision: Precision, padding: int, four_bit: bool = False
) -> "PreTrainedModel":
    """The full weights of `ref` with a head of one output, random (from torch's seed) where `ref` has none.

    `padding` is the id the model takes for padding (see `padding_token`); `four_bit` quantises all matrices but the
    head to NF4. Raises UserError for an architecture
    that has no such head.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder, trust = fetch(ref), bool(ref.facts.get("trust_remote_code", False))
    known = AutoConfig.from_pretrained(folder, num_labels=1, trust_remote_code=trust)
    options: dict[str, Any] = {"dtype": torch_dtype(precision)}
    if four_bit:
        options["quantization_config"] = four_bit_config(options["dtype"])
        options["quantization_config"].llm_int8_skip_modules = [HEAD]
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, config=known, trust_remote_code=trust, **options
        )
    except ValueError as error:
        raise UserError(
            f"{ref.uri} cannot be a reward model: transformers has no classifier of type {known.model_type}",
            field="reward_base.model",
            mend="take a decoder such as Llama, Qwen, Mistral or Gemma",
        ) from error
    if not hasattr(model, HEAD):
        raise UserError(
            f"{ref.uri} cannot be a reward model: {type(model).__name__} has no head named {HEAD!r}",
            field="reward_base.model",
            mend="take a decoder such as Llama, Qwen, Mistral or Gemma",
        )
    model.config.get_text_config().pad_token_id = padding
    return model


def full_weights(ref: ModelRef, folder: Path, precision: Precision) -> ModelRef:
    """`ref` itself, or, for an adapter, its weights merged into those of its base and written to `folder`.

    So that a reward adapter lies on one set of full weights, which a policy of the same start shares (PERL).
    """
    from accelerate import PartialState  # type: ignore[import-untyped]

    if ref.base is None:
        return ref
    processes = PartialState()
    if processes.is_main_process:
        load_model(ref, precision=precision).save_pretrained(folder)
        load_tokenizer(ref).save_pretrained(folder)
    processes.wait_for_everyone()
    return ModelRef(uri=str(folder), digest=folder_digest(folder), facts=ref.facts)
