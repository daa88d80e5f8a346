"""Loading and saving models: full weights or base + adapter, in the dtype the machine can compute with."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.errors import UserError
from tasks.core.generators.base import Message
from tasks.core.launching.fsdp import holds_a_part
from tasks.core.references import ModelRef
from tasks.core.store import fetch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def load_tokenizer(ref: ModelRef) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model (of its base, for an adapter), padding on the left, with a pad token."""
    from transformers import AutoTokenizer

    trust = bool((ref.base or ref).facts.get("trust_remote_code", False))
    tokenizer = AutoTokenizer.from_pretrained(fetch(ref.base or ref), trust_remote_code=trust)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    ref: ModelRef, *, precision: Precision = "auto", four_bit: bool = False, train_adapter: bool = False
) -> "PreTrainedModel":
    """The model of a reference, on the accelerator if there is one; what several processes are to share stays where it
    was read.

    An adapter is merged into its base, which makes inference as fast as with full weights; with `train_adapter` it
    stays apart and trainable. `four_bit` quantises the base to NF4 (bitsandbytes).
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.integrations import is_deepspeed_zero3_enabled

    options: dict[str, Any] = {"dtype": torch_dtype(precision)}
    if four_bit:
        options["quantization_config"] = four_bit_config(options["dtype"])
    trust = bool((ref.base or ref).facts.get("trust_remote_code", False))
    model = AutoModelForCausalLM.from_pretrained(fetch(ref.base or ref), trust_remote_code=trust, **options)
    if ref.base is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, fetch(ref), is_trainable=train_adapter)
        model.active_peft_config.base_model_name_or_path = str(fetch(ref.base))  # saved as a digest alone
        if not train_adapter:
            model = model.merge_and_unload()
    # Whoever cuts a model up brings each part to its device.
    in_parts = is_deepspeed_zero3_enabled() or holds_a_part()
    if torch.cuda.is_available() and not four_bit and not in_parts:
        model = model.to("cuda")  # the process's own device, once its trainer's arguments are made
    return model


def tidy_model(folder: Path, base: ModelRef | None = None) -> None:
    """Make equal models equal files, and remove what a trainer leaves beside weights and tokenizer (pickled arguments,
    PEFT's empty model card).

    Of an adapter PEFT writes the modules in the random order of a set, and the folder of the base: the first are
    sorted, in the place of the other stands the digest of `base`, wherever that lies.
    """
    for name in ("training_args.bin", "README.md"):
        (folder / name).unlink(missing_ok=True)
    adapter = folder / "adapter_config.json"
    if adapter.exists():
        values = json.loads(adapter.read_text(encoding="utf-8"))
        values["target_modules"] = sorted(values["target_modules"])
        values["base_model_name_or_path"] = f"sha256:{base.digest}" if base else None
        adapter.write_text(json.dumps(values, indent=2, sort_keys=True), encoding="utf-8")


def render(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> list[int]:
    """The token ids of a prompt, ending where the assistant's answer begins.

    Uses the tokenizer's chat template; a base model without one gets the turns as paragraphs. A prompt that is one turn
    of the assistant is no chat but plain text that goes on. Where the template takes no system's turn (Gemma's), what
    that says stands before the user's words. Raises UserError where it takes the turns not at all.
    """
    from jinja2 import TemplateError

    if len(messages) == 1 and messages[0]["role"] == "assistant":
        return beginning(tokenizer) + tokenizer(messages[0]["content"], add_special_tokens=False)["input_ids"]
    if tokenizer.chat_template:
        turns: list[dict[str, str]] = [{"role": one["role"], "content": one["content"]} for one in messages]
        try:
            return _templated(tokenizer, turns)
        except TemplateError as error:
            refused = error
        if [turn["role"] for turn in turns[:2]] == ["system", "user"]:
            first = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
            with suppress(TemplateError):
                return _templated(tokenizer, [first, *turns[2:]])
        raise UserError(
            f"the model's chat template refuses a prompt: {refused}",
            field="student.model",
            mend="take another model, or one without a chat template",
        ) from refused
    text = "\n\n".join(message["content"] for message in messages) + "\n"
    return list(tokenizer(text)["input_ids"])


def _templated(tokenizer: "PreTrainedTokenizerBase", turns: list[dict[str, str]]) -> list[int]:
    encoded = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
    return list(encoded["input_ids"])


def beginning(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The ids that the tokenizer puts before a text: one that begins a sequence, or none."""
    whole = list(tokenizer("a")["input_ids"])
    return whole[: whole.index(tokenizer.bos_token_id) + 1] if tokenizer.bos_token_id in whole else []


def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The id a completion is trained to end with."""
    if tokenizer.eos_token_id is None:
        raise UserError("the model's tokenizer has no end-of-sequence token", field="student.model")
    return int(tokenizer.eos_token_id)


def torch_dtype(precision: Precision) -> Any:
    """The format of the weights that a precision stands for on this machine."""
    import torch

    if precision != "auto":
        return getattr(torch, precision)
    fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if fast else torch.float32  # bfloat16 is several times slower on most CPUs


def check_four_bit(*, field: str) -> None:
    """Raise UserError, which names `field`, where bitsandbytes is missing."""
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "4-bit weights need bitsandbytes, which is not installed",
            field=field,
            mend="pip install 'loopwright[bitsandbytes]', or choose `lora`",
        )


def four_bit_config(dtype: Any) -> Any:
    """NF4 with double quantisation, computing in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
