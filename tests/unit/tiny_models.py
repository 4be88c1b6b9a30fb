"""Random one-layer models over a dozen words, and the real sandbox configurations cut down to them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.config import RuntimeConfig
from tasks.records.records import Demonstration, Document, Prompt
from tests import shipped as conf

CONF = conf.CONF
WORDS = ["<pad>", "<eos>", "<unk>", "q", "a", ":", "is", "the", "cat", "red", "blue", "big", "small", ".", "?"]
PLAIN_WORDS = WORDS[7:13]
EOS = 1


def shipped(group: str, name: str) -> dict[str, Any]:
    """The values of ``conf/<group>/<name>.yaml``; ``${other.key}`` is looked up in ``conf/<other>``."""
    loaded = conf.shipped(group, name)
    for key, value in loaded.items():
        if isinstance(value, str) and value.startswith("${") and "." in value:
            other, wanted = value[2:-1].split(".")
            named = name if (CONF / other / f"{name}.yaml").exists() else "own_data"
            loaded[key] = shipped(other, named)[wanted]
    return loaded


def settings(group: str, **changes: Any) -> dict[str, Any]:
    """The values of ``conf/<group>/sandbox.yaml``, changed."""
    loaded = shipped(group, "sandbox")
    unknown = changes.keys() - loaded.keys()
    assert not unknown, f"no such knob: {unknown}"
    return loaded | {"seed": 7} | changes


def runtime(**changes: Any) -> RuntimeConfig:
    values = {
        "device": "cpu",
        "precision": "fp32",
        "frozen_precision": "fp32",
        "gradient_checkpointing": False,
        "threads": 1,
        "processes": 1,
        "shard": "none",
        "tokens_per_microbatch": 10_000,
        "generation_batch": 16,
        "runner": "threads",
        "ray_address": None,
        "max_workers": 1,
        "checkpoint_every": 2,
        "checkpoint_minutes": 60,
        "stop_seconds": 5,
        "debug": True,
        "progress": False,
    }
    return RuntimeConfig.model_validate(values | changes)


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def policy(seed: int = 0, *, layers: int = 2, context: int = 64) -> LlamaForCausalLM:
    """Far from uniform, so that every number differs from every other."""
    shape = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=EOS,
    )
    model = LlamaForCausalLM(shape)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=draws))
    return model


def text(index: int, words: int) -> str:
    return " ".join(PLAIN_WORDS[(index * (place + 1) + place) % len(PLAIN_WORDS)] for place in range(words))


def prompts(count: int) -> list[Prompt]:
    return [
        Prompt(prompt_id=f"p{index}", owner_id="o", text=f"q : {text(index, 1 + index % 4)} a :")
        for index in range(count)
    ]


def demonstrations(count: int) -> list[Demonstration]:
    return [
        Demonstration(prompt=prompt, response=text(3 * index + 1, 1 + index % 5), labeler_id="ann")
        for index, prompt in enumerate(prompts(count))
    ]


def documents(count: int) -> list[Document]:
    return [Document(text=text(index, 5 + index % 7)) for index in range(count)]


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def published(store: ArtifactStore, stage: str, write: Callable[[Path], object]) -> ArtifactRef:
    """An artifact that ``write`` fills, where a stage under test reads it."""
    with store.publish(stage, "f" * 20, {}, {}) as draft:
        write(draft.folder)
    assert draft.ref is not None
    return draft.ref
