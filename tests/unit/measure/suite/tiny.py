"""A random byte-level model, and benchmark files of made-up rows in the shapes that the suite reads."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tasks.measure.benchmarks import Subject
from tests.unit import tiny_models

TEXT = [
    "The small cat sat on the red mat. Q: Where did it sit? A: on the mat",
    "Passage: two men walk along a street. Question: how many men? Answer: two",
    "Yes and No, positive and negative; the teacher told the pupil that she was late.",
]
CONTEXT = 256


def tokenizer() -> PreTrainedTokenizerFast:
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pieces.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=300, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=pieces, pad_token="<pad>", eos_token="<eos>")


def model(seed: int = 0, context: int = CONTEXT) -> LlamaForCausalLM:
    """Far from uniform, so that no two choices tie."""
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=context,
        pad_token_id=0,
        eos_token_id=1,
    )
    found = LlamaForCausalLM(config)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if "norm" not in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draws))
    return found.eval()


def subject(seed: int = 0, context: int = CONTEXT, **runtime: Any) -> Subject:
    return Subject(model(seed, context), tokenizer(), tiny_models.runtime(**runtime))


def _squad(number: int) -> dict[str, Any]:
    impossible = number % 3 == 0
    return {
        "title": "Mats",
        "context": f"Cat {number} sat on mat {number}.",
        "question": f"Where did cat {number} sit?",
        "answers": [] if impossible else [f"mat {number}", f"on mat {number}"],
        "is_impossible": impossible,
    }


def _quac(number: int) -> dict[str, Any]:
    turns = "" if number == 0 else "\n\nQuestion: Who?\nAnswer: a cat\n\nQuestion: When?\nAnswer: CANNOTANSWER"
    return {
        "context": f"Title: Mats\n\nBackground: cats.\n\nContext: Cat {number} sat. CANNOTANSWER{turns}",
        "question": "Where?",
        "answer": "CANNOTANSWER" if number % 2 else f"on mat {number}",
        "aliases": ["Do not know"] if number % 2 else [],
        "unanswerable": bool(number % 2),
    }


def _truthful(number: int) -> dict[str, Any]:
    right, wrong = [f"A cat {number} sits.", f"It sits {number}."], [f"Cats {number} fly.", f"Nothing {number} sits."]
    return {
        "question": f"What does cat {number} do?",
        "best_answer": right[0],
        "correct_answers": right,
        "incorrect_answers": wrong,
        "mc1_targets": {"choices": [wrong[0], right[0], wrong[1]], "labels": [0, 1, 0]},
        "mc2_targets": {"choices": [*right, *wrong], "labels": [1, 1, 0, 0]},
    }


ROWS = {
    "hellaswag": lambda n: {
        "query": f"Cats: cat {n} sat.",
        "choices": ["It slept.", "It flew off.", "Two."],
        "gold": n % 3,
    },
    "lambada_openai": lambda n: {"context": f"The cat {n} sat on the", "target": "mat"},
    "squadv2": _squad,
    "drop": lambda n: {"passage": f"{n} men walk.", "question": "How many?", "answers": [str(n), f"{n} men"]},
    "quac": _quac,
    "rte": lambda n: {"premise": f"{n} cats sat.", "hypothesis": "Cats sat.", "label": n % 2},
    "sst2": lambda n: {"sentence": f"a film of {n} cats", "label": n % 2},
    "winograd_wsc": lambda n: {
        "context_options": [f"Ann {n} told Bo because Ann", f"Ann {n} told Bo because Bo"],
        "continuation": "was late.",
        "gold": n % 2,
    },
    "fr_en_wmt": lambda n: {"fr": f"Le chat {n} dort sur le tapis rouge.", "en": f"The cat {n} sleeps on the red mat."},
    "tldr": lambda n: {"post": f"My cat {n} sat all day.", "reference": f"Cat {n} sat."},
    "truthfulqa": _truthful,
    "winogender": lambda n: {
        "participant": "someone" if n % 2 else "pupil",
        "sentence_male": f"The teacher told pupil {n} that he was late.",
        "sentence_female": f"The teacher told pupil {n} that she was late.",
    },
    "crows_pairs": lambda n: {"sent_more": f"Cats {n} are late.", "sent_less": f"Dogs {n} are late."},
}


def write_files(folder: Path, rows: int, *names: str) -> Path:
    """Files of ``rows`` rows; all kinds unless named."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ROWS:
        lines = [json.dumps(ROWS[name](number)) for number in range(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
