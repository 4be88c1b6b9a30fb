"""Models and tokenizers of a few thousand weights, random but large enough that outputs differ between tokens."""

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

PAD, EOS, VOCABULARY = 0, 2, 40
WORDS = [
    "<pad>",
    "<unk>",
    "<eos>",
    "q",
    "a",
    ":",
    ".",
    ",",
    "?",
    "the",
    "cat",
    "dog",
    "is",
    "red",
    "blue",
    "big",
    "small",
    "what",
    "color",
    "and",
    "not",
]
SENTENCES = [
    "what color is the cat ?",
    "the cat is red .",
    "the dog is not big , and it is blue .",
    "café naïve 123\n- item",
]


def spread(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Weights far from zero, so that a wrong position or a wrong row shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in model.parameters():
            noise = torch.randn(param.shape, generator=generator)
            param.copy_(noise * 0.15) if param.ndim > 1 else param.add_(noise * 0.05)
    return model.eval()


def llama(seed: int = 0, **changes: Any) -> PreTrainedModel:
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "bos_token_id": None,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "tie_word_embeddings": True,
    }
    return spread(LlamaForCausalLM(LlamaConfig(**shape | changes)), seed)


def gpt2(seed: int = 0, **changes: Any) -> PreTrainedModel:
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 32,
        "bos_token_id": None,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "summary_first_dropout": 0.0,
    }
    return spread(GPT2LMHeadModel(GPT2Config(**shape | changes)), seed)


FAMILIES = {"llama": llama, "gpt2": gpt2}


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token per space-separated word."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def bpe_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE, where a space belongs to the token behind it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{"pad_token": "<pad>", "eos_token": "<eos>"} | special)


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """SentencePiece style: every word begins with a mark that stands for its space."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<pad>", "<eos>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
