"""Prompts as models of other makers take them: templates without a system's turn, tokenizers with code of their own."""

import json
import shutil
from pathlib import Path

import pytest

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.models import load_tokenizer, render
from tasks.core.references import ModelRef

NO_SYSTEM = """{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}\
{% if m.role == 'user' and 'forbidden' in m.content %}{{ raise_exception('not that') }}{% endif %}\
{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"""
OWN = "from transformers import PreTrainedTokenizerFast\n\n\nclass OwnTokenizer(PreTrainedTokenizerFast):\n    pass\n"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


SYSTEM, ANSWER = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Yes."}


@pytest.fixture
def tokenizer(tiny_ref):
    tokenizer = load_tokenizer(tiny_ref)
    tokenizer.chat_template = NO_SYSTEM
    return tokenizer


def test_what_the_system_says_stands_before_the_users_words_where_the_template_has_no_place_for_it(tokenizer):
    assert render(tokenizer, [SYSTEM, user("Why?"), ANSWER, user("So?")]) == render(
        tokenizer, [user("Be brief.\n\nWhy?"), ANSWER, user("So?")]
    )
    assert (
        render(tokenizer, [user("Why?")])
        == tokenizer.apply_chat_template([user("Why?")], add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
    )


@pytest.mark.parametrize("messages", [[user("forbidden")], [SYSTEM, user("forbidden")], [SYSTEM, ANSWER]])
def test_a_prompt_that_the_template_refuses_is_a_message(tokenizer, messages):
    with pytest.raises(UserError, match="chat template refuses a prompt: no"):
        render(tokenizer, messages)


def test_code_that_comes_with_a_tokenizer_runs_where_it_is_trusted(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = Path(shutil.copytree(tiny_model, tmp_path / "own"))
    (folder / "own.py").write_text(OWN)
    place = folder / "tokenizer_config.json"
    settings = json.loads(place.read_text()) | {
        "tokenizer_class": "OwnTokenizer",
        "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]},
    }
    place.write_text(json.dumps(settings))
    facts = {"trust_remote_code": True}
    trusted = ModelRef(uri=str(folder), digest=folder_digest(folder), facts=facts)
    assert type(load_tokenizer(trusted)).__name__ == "OwnTokenizer"
    adapter = ModelRef(uri="nowhere", digest="0" * 64, base=trusted)
    assert type(load_tokenizer(adapter)).__name__ == "OwnTokenizer"
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_tokenizer(trusted.model_copy(update={"facts": {}}))
