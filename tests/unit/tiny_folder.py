"""A small random Hugging Face folder whose tokenizer is as real ones are, and JSONL data that it can read; all of it invented."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

NAMES = ("ann", "bob", "cleo", "dan", "eve", "finn", "gus", "hana", "ivo", "jane", "kai", "lea")
THINGS = ("apple", "bicycle", "candle", "drum", "engine", "fiddle", "garden", "harbour", "island", "jacket")


def text_of(index: int) -> str:
    """A sentence; no two of the first 120 begin alike."""
    name, thing = NAMES[index % 12], THINGS[index // 12 % 10]
    return f"{thing} number {index} of {name} : what does {name} do with the {thing} on day {index} ?"


def answer_of(index: int) -> str:
    """An answer to it."""
    return f"{NAMES[index % 12]} paints the {THINGS[index // 12 % 10]} and sings."


def bare_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with an EOS and, like GPT-2's, without a pad token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{text_of(index)} {answer_of(index)}" for index in range(120)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def model_folder(folder: Path, *, extra_rows: int = 0) -> Path:
    """A Llama of one layer, tied, with as many rows as its tokenizer has entries, or some more."""
    tokenizer = bare_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + extra_rows,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=96,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def data_folder(folder: Path) -> Path:
    """Demonstrations, rankings, prompts and documents, about what a first try brings."""
    folder.mkdir(parents=True)

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    write("demonstrations.jsonl", [{"prompt": text_of(i), "response": answer_of(i)} for i in range(40)])
    write(
        "rankings.jsonl",
        [
            {"prompt": text_of(i), "completions": [answer_of(i), answer_of(i + 5), "no idea."], "ranks": [1, 2, 3]}
            for i in range(40, 80)
        ],
    )
    write("rl_prompts.jsonl", [{"prompt": text_of(i)} for i in range(80, 120)])
    write("pretrain.jsonl", [{"text": " ".join(answer_of(j) for j in range(i, i + 12))} for i in range(30)])
    return folder
