"""The policy's responses from vLLM, which has the base in memory once more and takes the adapter anew every step.

The update does not believe vLLM's arithmetic: log-probabilities of what was sampled are those of the policy itself.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.generators.vllm import dtype_of, reserved_rank
from tasks.core.models import Precision
from tasks.core.references import ModelRef
from tasks.core.store import fetch
from tasks.ppo.roles import LanguageModelRoles
from tasks.ppo.rollout import Rollout, make_rollout
from tasks.ppo.sampling import SampledPrompts, SamplingEnded, end_tokens
from tasks.ppo.shared_base import POLICY


class VLLMSampler(SampledPrompts):
    """Draws responses from the policy's own distribution at `roles.temperature`, as `PolicySampler` does.

    What is drawn depends on the policy, the prompt, `seed`, the step and the prompt's stream.
    """

    def __init__(
        self,
        roles: LanguageModelRoles,
        tokenizer: Any,
        base: ModelRef,
        folder: Path,
        *,
        max_new_tokens: int,
        seed: int,
        longest_prompt: int,
        rank: int,
        memory: float,
        precision: Precision,
    ) -> None:
        """Load the base into vLLM; adapters pass through `folder`. No prompt may be longer than `longest_prompt`."""
        import vllm

        super().__init__(roles, max_new_tokens)
        self._seed, self._folder, self._padding = seed, folder, tokenizer.pad_token_id
        self._ends = sorted(end_tokens(roles.model, tokenizer))
        try:
            self._llm = vllm.LLM(
                model=str(fetch(base)),
                dtype=dtype_of(precision),
                enable_lora=True,
                max_lora_rank=reserved_rank(rank),
                gpu_memory_utilization=memory,
                max_model_len=longest_prompt + max_new_tokens,
                generation_config="vllm",  # not the model's own: what is sampled from is the policy as it is
                trust_remote_code=bool(base.facts.get("trust_remote_code", False)),
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"vLLM does not start: {error}",
                field="rollouts",
                mend="give it another share of the GPU (rollouts.memory), or set rollouts.engine to policy",
            ) from error

    def sample(self, prompts: Sequence[list[int]], *, step: int, streams: Sequence[int]) -> Rollout:
        """One response to each prompt, as `PolicySampler.sample`. Raises SamplingEnded when vLLM does not finish."""
        from numpy.random import SeedSequence
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.exceptions import EngineDeadError

        self.check(prompts, step)
        parameters = [
            SamplingParams(
                max_tokens=self.max_new_tokens,
                temperature=self.roles.temperature,
                top_p=1.0,
                top_k=-1,
                stop_token_ids=self._ends,
                seed=int(SeedSequence([self._seed, step, stream]).generate_state(1)[0]) % 2**31,
                detokenize=False,
            )
            for stream in streams
        ]
        shutil.rmtree(self._folder, ignore_errors=True)
        self.roles.adapters.save_pretrained(self._folder, selected_adapters=[POLICY])
        # vLLM knows an adapter by its number, and keeps the one of the step before no longer than it must.
        adapter = LoRARequest(f"step {step}", step + 1, str(self._folder / POLICY))
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        try:
            outputs = self._llm.generate(asked, parameters, use_tqdm=False, lora_request=adapter)
        except EngineDeadError as error:
            raise SamplingEnded("vLLM has ended") from error
        answers = [output.outputs[0] for output in outputs]
        ends = {answer.finish_reason for answer in answers}
        if not ends <= {"stop", "length"}:  # asked to end, it gives up what is under way
            raise SamplingEnded(f"vLLM gave up: {', '.join(sorted(map(str, ends)))}")
        return make_rollout(
            prompts,
            [list(answer.token_ids) for answer in answers],
            [answer.finish_reason == "stop" for answer in answers],
            padding=self._padding,
            device=self.roles.model.device,
        )

    def close(self) -> None:
        """End vLLM's own process."""
        self._llm.llm_engine.engine_core.shutdown()
