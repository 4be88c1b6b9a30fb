"""Ten families as people download them: weights of a few thousand numbers, and each family's own kind of tokenizer and files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, GPT2Tokenizer, PreTrainedTokenizerFast

from tests.unit.language.chat_templates import FAMILIES as TEMPLATES
from tests.unit.tiny_folder import answer_of, text_of

TEXTS = [f"{text_of(index)} {answer_of(index)}" for index in range(120)]
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
GPT2_SHAPE: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16, "head_dim": 16}


class Family(NamedTuple):
    """What is special about a family's folders."""

    tokenizer: Callable[[Path], PreTrainedTokenizerFast]
    """Made below a folder of scratch files."""
    config: dict[str, Any]
    more_rows: int = 0
    """Of the embedding, beyond the tokenizer's entries."""
    template: str | None = None
    """Key of ``chat_templates``."""
    ends: tuple[str, ...] = ()
    """EOS tokens of generation_config.json, where there are several."""
    dtype: torch.dtype = torch.float32
    shard: str = "5GB"


def byte_level(texts: list[str], special: list[str], prefix: str | None = None) -> Tokenizer:
    """BPE over bytes, as GPT-2's and those that follow it; Llama 3 and OPT put a token in front."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    if prefix is not None:
        made.post_processor = _in_front(made, prefix)
    return made


def metaspace(special: list[str], prefix: str) -> Tokenizer:
    """BPE as SentencePiece writes it: spaces are a letter of their own, unknown letters their bytes."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=520, special_tokens=[*special, "<unk>", *bytes_], show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    state = json.loads(made.to_str())
    state["added_tokens"] = [
        token for token in state["added_tokens"] if token["content"] not in bytes_
    ]  # plain entries
    fresh = Tokenizer.from_str(json.dumps(state))
    fresh.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    fresh.post_processor = _in_front(fresh, prefix)
    return fresh


def _in_front(tokenizer: Tokenizer, token: str) -> processors.TemplateProcessing:
    place = tokenizer.token_to_id(token)
    return processors.TemplateProcessing(f"{token} $A", f"{token} $A $B", [(token, place)])


def _fast(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)


def _files(prefix: bool, **special: str) -> Callable[[Path], PreTrainedTokenizerFast]:
    """Read from vocab.json and merges.txt, as GPT-2's first folders and OPT's have them."""

    def made(folder: Path) -> PreTrainedTokenizerFast:
        names = list(dict.fromkeys(special.values()))
        byte_level(TEXTS, names).model.save(str(folder))
        return GPT2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), add_bos_token=prefix, **special)

    return made


def _json(names: list[str], prefix: str | None = None, **special: str) -> Callable[[Path], PreTrainedTokenizerFast]:
    return lambda _: _fast(byte_level(TEXTS, names, prefix), **special)


def _pieces(names: list[str], **special: str) -> Callable[[Path], PreTrainedTokenizerFast]:
    return lambda _: _fast(metaspace(names, special["bos_token"]), unk_token="<unk>", **special)


END, CHATML = "<|endoftext|>", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
GEMMA = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
GEMMA_TOKENS = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
SOFTCAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
FAMILIES: dict[str, Family] = {
    "gpt2": Family(_files(False, unk_token=END, bos_token=END, eos_token=END), GPT2_SHAPE),
    "opt": Family(
        _files(True, unk_token="</s>", bos_token="</s>", eos_token="</s>", pad_token="<pad>"),
        {"ffn_dim": 48, "word_embed_proj_dim": 32},
        dtype=torch.float16,
    ),
    "gpt_neox": Family(
        _json([END, "<|padding|>"], unk_token=END, bos_token=END, eos_token=END),
        {"num_key_value_heads": None, "rotary_pct": 0.25, "tie_word_embeddings": False},
        more_rows=27,
    ),
    "phi": Family(
        _json([END], unk_token=END, bos_token=END, eos_token=END), {"partial_rotary_factor": 0.5}, more_rows=60
    ),
    "llama": Family(
        _json(LLAMA, LLAMA[0], bos_token=LLAMA[0], eos_token="<|eot_id|>"),
        {"tie_word_embeddings": False, "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
        template="llama3",
        ends=("<|end_of_text|>", "<|eot_id|>"),
        dtype=torch.bfloat16,
        shard="40KB",
    ),
    "mistral": Family(
        _pieces(["<s>", "</s>", "[INST]", "[/INST]"], bos_token="<s>", eos_token="</s>"),
        {"sliding_window": 16, "tie_word_embeddings": False},
        template="mistral",
        shard="40KB",
    ),
    "qwen2": Family(
        _json(CHATML, eos_token="<|im_end|>", pad_token=END),
        {"tie_word_embeddings": True},
        more_rows=77,
        template="chatml",
        ends=("<|im_end|>", END),
        dtype=torch.bfloat16,
    ),
    "qwen3": Family(
        _json(CHATML, eos_token="<|im_end|>", pad_token=END),
        {"head_dim": 16, "tie_word_embeddings": True},
        more_rows=77,
        template="chatml",
        ends=("<|im_end|>", END),
    ),
    "gemma2": Family(_pieces(GEMMA, **GEMMA_TOKENS), MIXED | SOFTCAPS, template="gemma", dtype=torch.bfloat16),
    "gemma3_text": Family(
        _pieces(GEMMA, **GEMMA_TOKENS), MIXED, template="gemma", ends=("<eos>", "<end_of_turn>"), more_rows=64
    ),
}


def family_folder(name: str, folder: Path) -> Path:
    """Random weights of a family, its tokenizer and its configurations, as a download has them."""
    family = FAMILIES[name]
    folder.mkdir(parents=True)
    tokenizer = family.tokenizer(folder)
    if family.template is not None:
        tokenizer.chat_template = TEMPLATES[family.template].template
    ids = {kind: getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    values = SHAPE | {f"{kind}_token_id": place for kind, place in ids.items()} | family.config
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        name,
        vocab_size=len(tokenizer) + family.more_rows,
        **{key: value for key, value in values.items() if value is not None},
    )
    if config.pad_token_id is not None and ids["pad"] is None:
        config.pad_token_id = None  # a family's default names a token of its own vocabulary
    model = AutoModelForCausalLM.from_config(config).to(family.dtype)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in family.ends] or ids["eos"]
    model.generation_config = GenerationConfig(
        **{f"{kind}_token_id": place for kind, place in (ids | {"eos": ends}).items()}
    )
    model.save_pretrained(folder, max_shard_size=family.shard)
    tokenizer.save_pretrained(folder)
    if (folder / "merges.txt").is_file():
        (folder / "tokenizer.json").unlink()  # which transformers writes beside them
    return folder
