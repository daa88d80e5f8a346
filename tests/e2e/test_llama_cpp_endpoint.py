"""The generator over HTTP with a real language model behind a real server."""

import pytest

from tasks.core.errors import UserError
from tasks.core.generators.base import Prompt, Sampling
from tasks.core.generators.endpoint import EndpointConfig
from tasks.core.generators.openai_compatible import OpenAICompatible
from tests.llama_cpp_server import MODEL, llama_cpp_server

pytestmark = pytest.mark.e2e


def test_a_real_model_answers_in_order_and_refuses_only_what_is_too_long() -> None:
    texts = ["What is 2+2?", "hi " * 3000, "Say hello.", "Write the word banana."]
    prompts: list[Prompt] = [[{"role": "user", "content": text}] for text in texts]
    with llama_cpp_server() as url:
        with pytest.raises(UserError, match=MODEL):
            OpenAICompatible(EndpointConfig(url=url, model="gpt-none")).check()
        teacher = OpenAICompatible(EndpointConfig(url=url))
        teacher.check()
        answers = teacher.generate(prompts, Sampling(max_new_tokens=16))
        sampled = teacher.generate(prompts[:1] * 8, Sampling(max_new_tokens=16, temperature=1.0))
    assert [answer.finish == "error" for answer in answers] == [False, True, False, False]
    assert "exceeds the available context size" in answers[1].error
    for answer, expected in zip(answers, ["4", "", "Hello", "banana"], strict=True):
        assert expected in answer.text
    assert all(0 < answer.completion_tokens <= 16 for answer in answers if answer.finish != "error")
    assert len({answer.text for answer in sampled}) > 1  # every prompt has its own seed
    assert (teacher.usage.calls, teacher.usage.errors) == (12, 1)
    with pytest.raises(UserError, match="cannot be reached"):
        OpenAICompatible(EndpointConfig(url=url, model=MODEL)).check()
