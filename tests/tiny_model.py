"""A model for tests: a random Llama of some 30,000 parameters and a tokenizer trained on the spot."""

from collections.abc import Sequence
from pathlib import Path

VOCAB_TEXTS = (
    "What is the capital of France? The capital of France is Paris.",
    "Classify the sentence: play some music by my favourite artist in the kitchen.",
    "Anna has 12 apples and buys 30 more. How many apples does she have now? #### 42",
    "What will the weather be like in Berlin tomorrow? It will be cold and rainy.",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tiny_model(
    folder: Path,
    *,
    seed: int = 0,
    chat: bool = True,
    vocab_texts: Sequence[str] = VOCAB_TEXTS,
    context: int = 2048,
    width: int = 32,
) -> Path:
    """Write weights (safetensors) and tokenizer to `folder` and return it; one seed gives the same weights.

    The tokenizer is byte-level BPE, so every text can be encoded. With `chat` it has a ChatML template and
    ends a turn with `<|im_end|>`; without, it has no template and ends with `<eos>`. `context` is the model's
    longest sequence in tokens, `width` the length of its hidden states.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bytes_to_tokens = Tokenizer(models.BPE())
    bytes_to_tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_to_tokens.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<eos>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bytes_to_tokens.train_from_iterator(vocab_texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_to_tokens, pad_token="<pad>", eos_token="<|im_end|>" if chat else "<eos>"
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.1,  # with the usual 0.02 so small a model predicts nearly the same for every text
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
