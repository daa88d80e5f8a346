"""The package: `llmlingua` 0.2.2, as its own documentation calls it."""

from typing import Any

from llmlingua import PromptCompressor  # type: ignore[import-not-found]

from tests.benchmarks.compress_sides.common import MODEL, RATE, serve

BETWEEN = "\t\t|\t\t"


def main() -> None:
    """Load the model and work on command."""
    package = PromptCompressor(str(MODEL), device_map="cpu", use_llmlingua2=True)

    def compress(texts: list[str]) -> list[list[str]]:
        found = package.compress_prompt_llmlingua2(texts, rate=RATE, return_word_label=True)
        return [found["fn_labeled_original_prompt"].split(BETWEEN)]

    def work(texts: list[str], mode: str) -> dict[str, Any]:
        if mode == "stream":
            return {"labels": [label for text in texts for label in compress([text])]}
        return {"labels": compress(texts)}  # of all texts in one list

    serve(work)


if __name__ == "__main__":
    main()
