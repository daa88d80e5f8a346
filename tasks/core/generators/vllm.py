"""A model on vLLM in this process: continuous batching on a GPU, an adapter applied without merging it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.errors import UserError
from tasks.core.generators.base import (
    Completion,
    Progress,
    Prompt,
    Sampling,
    Usage,
    no_room,
    request_seed,
    streams_of,
)
from tasks.core.models import Precision, load_tokenizer, render, torch_dtype
from tasks.core.references import ModelRef
from tasks.core.store import fetch

if TYPE_CHECKING:
    from vllm import RequestOutput

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values vLLM takes for `max_lora_rank`."""


class VLLMGenerator:
    """Generator over vLLM's offline API (https://docs.vllm.ai): LLM.generate, SamplingParams, LoRARequest.

    Prompts are rendered here, so that every engine sees the same tokens. A model that one GPU cannot hold is spread
    over several of this machine; for one that needs several machines start a vLLM server and use the engine `openai`.
    """

    def __init__(
        self,
        model: ModelRef,
        *,
        precision: Precision = "auto",
        tensor_parallel: int = 1,
        memory: float = 0.9,
        context: int = 0,
        field: str = "engine",
    ) -> None:
        """Load the weights; an adapter goes on top of its base. `memory` is the share of a GPU that is taken, `context`
        the most tokens that a prompt and its completion have together (0: as many as the model allows), `field` where
        the engine is chosen in the flow's configuration.

        Raises UserError when vLLM is not installed or the adapter's rank is more than it takes.
        """
        try:
            import vllm
            from vllm.lora.request import LoRARequest
        except ModuleNotFoundError as error:
            if error.name not in ("vllm", "vllm.lora"):
                raise
            mend = "pip install 'loopwright[vllm]', or choose the engine transformers."
            raise UserError("vLLM is not installed", field=field, mend=mend) from error
        base = model.base or model
        options: dict[str, Any] = {}
        self._adapter = None
        if model.base is not None:
            adapter = fetch(model)
            options = {"enable_lora": True, "max_lora_rank": _lora_rank(adapter)}
            self._adapter = LoRARequest("adapter", 1, str(adapter))
        self.usage = Usage()
        self._tokenizer = load_tokenizer(model)
        if context:
            options["max_model_len"] = context
        self._llm = vllm.LLM(
            model=str(fetch(base)),
            dtype=dtype_of(precision),
            tensor_parallel_size=tensor_parallel,
            gpu_memory_utilization=memory,
            trust_remote_code=bool(base.facts.get("trust_remote_code", False)),
            **options,
        )
        self._context: int = self._llm.llm_engine.model_config.max_model_len

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        progress: Progress | None = None,
        *,
        streams: Sequence[int] | None = None,
    ) -> list[Completion]:
        """One completion per prompt, in the prompts' order; `progress` is called once, at the end.

        A prompt that leaves no room for `sampling.max_new_tokens` in the model's context gives a completion that is an
        error; vLLM itself would refuse all of them for it.
        """
        from vllm import SamplingParams

        if not prompts:
            return []
        restricted: dict[str, Any] = {}
        if sampling.choices:
            from vllm.sampling_params import StructuredOutputsParams

            restricted["structured_outputs"] = StructuredOutputsParams(choice=list(sampling.choices))
        tokens = [render(self._tokenizer, prompt) for prompt in prompts]
        faults = [no_room(len(ids), sampling.max_new_tokens, self._context) for ids in tokens]
        numbers = streams_of(prompts, streams)
        fitting = [index for index, fault in enumerate(faults) if fault is None]
        parameters = [
            SamplingParams(
                max_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k or -1,  # 0 means "all" to newer versions only, -1 to every one
                stop=list(sampling.stop),
                seed=request_seed(sampling, numbers[index]),
                **restricted,
            )
            for index in fitting
        ]
        asked = [{"prompt_token_ids": tokens[index]} for index in fitting]
        outputs = self._llm.generate(asked, parameters, use_tqdm=False, lora_request=self._adapter)
        answered = dict(zip(fitting, map(_completion, outputs), strict=True))
        completions = [
            answered[index]
            if fault is None
            else Completion(text="", finish="error", prompt_tokens=len(tokens[index]), error=fault)
            for index, fault in enumerate(faults)
        ]
        self.usage.calls += len(completions)
        self.usage.errors += len(completions) - len(fitting)
        self.usage.prompt_tokens += sum(completion.prompt_tokens for completion in answered.values())
        self.usage.completion_tokens += sum(completion.completion_tokens for completion in answered.values())
        if progress:
            progress(len(prompts), len(prompts))
        return completions

    def close(self) -> None:
        """End vLLM's own process; what it holds is free then."""
        self._llm.llm_engine.engine_core.shutdown()


def dtype_of(precision: Precision) -> str:
    """The format as vLLM names it: what "auto" is to transformers here, and not what it is to vLLM."""
    return str(torch_dtype(precision)).removeprefix("torch.")


def _lora_rank(adapter: Path) -> int:
    rank: int = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    return reserved_rank(rank)


def reserved_rank(rank: int) -> int:
    """The least rank vLLM can reserve for an adapter of rank `rank`; its own default, 16, refuses larger ones."""
    fitting = [allowed for allowed in LORA_RANKS if allowed >= rank]
    if not fitting:
        raise UserError(
            f"vLLM takes adapters up to rank {LORA_RANKS[-1]}, this one has {rank}",
            field="engine",
            mend="Choose the engine transformers, which merges the adapter.",
        )
    return fitting[0]


def _completion(output: "RequestOutput") -> Completion:
    answer = output.outputs[0]
    finish: Literal["stop", "length"] = "length" if answer.finish_reason == "length" else "stop"
    return Completion(
        text=answer.text,
        finish=finish,
        prompt_tokens=len(output.prompt_token_ids),
        completion_tokens=len(answer.token_ids),
    )
