"""A generator whose prompts are made shorter on their way to it."""

from collections.abc import Sequence

from tasks.core.compression.compressor import Compressed, Compressor, Document
from tasks.core.compression.config import CompressorConfig
from tasks.core.generators.base import Completion, Generator, Message, Progress, Prompt, Sampling, Usage


class CompressedGenerator:
    """Compresses the messages that `config` names and lets `generator` answer; `usage` is that generator's, with the
    tokens that were saved."""

    def __init__(self, generator: Generator, compressor: Compressor, config: CompressorConfig) -> None:
        self._generator, self._compressor, self._config = generator, compressor, config
        self.usage = Usage()
        self._saved = 0

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        progress: Progress | None = None,
        *,
        streams: Sequence[int] | None = None,
    ) -> list[Completion]:
        """One completion per prompt, in the prompts' order; equal messages are compressed once."""
        texts = dict.fromkeys(
            message["content"]
            for prompt in prompts
            for place, message in enumerate(prompt)
            if self._is_compressed(prompt, place, message)
        )
        done = self._compressor.compress([Document(text) for text in texts], self._config)
        # Too short to compress, or nothing left of it: the message goes out as it is.
        shorter = {
            text: one
            for text, one in zip(texts, done, strict=True)
            if len(one.words) >= self._config.shortest and one.text.strip()
        }
        asked = [self._shortened(prompt, shorter) for prompt in prompts]
        completions = self._generator.generate(asked, sampling, progress, streams=streams)
        self.usage = self._generator.usage.model_copy(update={"saved_tokens": self._saved})
        return completions

    def _is_compressed(self, prompt: Prompt, place: int, message: Message) -> bool:
        is_last = place == len(prompt) - 1
        return message["role"] in self._config.roles and (self._config.last or not is_last)

    def _shortened(self, prompt: Prompt, shorter: dict[str, Compressed]) -> list[Message]:
        messages: list[Message] = []
        for place, message in enumerate(prompt):
            found = shorter.get(message["content"]) if self._is_compressed(prompt, place, message) else None
            if found is None:
                messages.append(message)
            else:
                self._saved += found.tokens - found.kept_tokens
                messages.append({"role": message["role"], "content": found.text})
        return messages
