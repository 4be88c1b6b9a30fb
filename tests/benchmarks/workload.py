"""What both sides do: models, prompts and stopping rule. Imports nothing of the project, so that TRL's side can use it.

Four Llamas of one shape with random weights, fp32: policy, reference, reward model, value model. ``fixed``: every response
has exactly as many tokens as asked for. ``varlen``: each token ends its response with probability 1 / EOS_MEAN.
"""

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

PAD, EOS, BOS = 0, 1, 2
EOS_MEAN = 32
SHORTEST_PROMPT, LONGEST_PROMPT = 24, 32
NEVER = -60.0
"""Logit bias of a token that is never drawn."""
SIZES: dict[str, dict[str, int]] = {
    "3M": {"hidden_size": 192, "num_hidden_layers": 6, "heads": 6, "intermediate_size": 512, "vocab_size": 2048},
    "9M": {"hidden_size": 320, "num_hidden_layers": 6, "heads": 5, "intermediate_size": 896, "vocab_size": 4096},
    "30M": {"hidden_size": 512, "num_hidden_layers": 8, "heads": 8, "intermediate_size": 1408, "vocab_size": 8192},
    "124M": {"hidden_size": 768, "num_hidden_layers": 12, "heads": 12, "intermediate_size": 2048, "vocab_size": 50304},
}


@dataclass(frozen=True)
class Work:
    """One measurement."""

    size: str = "30M"
    lengths: str = "varlen"  # or fixed
    batch: int = 64  # episodes in an iteration
    minibatch: int = 16  # episodes behind an optimizer step
    response: int = 64  # longest response
    precision: str = "fp32"  # or bf16; onednn on TRL's side
    iterations: int = 3  # measured; one more is run before them
    gamma: float = 0.0  # weight of the pretraining gradient, our side only
    old_logprobs: str = "sampled"  # as TRL does, or recomputed, our side only
    device: str = "cpu"  # or cuda

    def arguments(self) -> list[str]:
        """The same as command-line arguments."""
        return [part for name, value in asdict(self).items() for part in (f"--{name}", str(value))]


def parse(arguments: list[str]) -> Work:
    """Inverse of ``Work.arguments``."""
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    kinds = {name: type(value) for name, value in asdict(Work()).items()}
    return Work(**{name[2:]: kinds[name[2:]](value) for name, value in given.items()})


def shape(size: str) -> LlamaConfig:
    """Configuration of one of ``SIZES``."""
    values = dict(SIZES[size])
    heads = values.pop("heads")
    return LlamaConfig(
        **values,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=1024,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=BOS,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        num_labels=1,
    )


def build_models(work: Work) -> tuple[Any, Any, Any, Any]:
    """Policy, reference, reward model, value model. The head's bias sets how often a response ends."""
    config = shape(work.size)
    torch.manual_seed(0)
    policy = LlamaForCausalLM(config)
    policy.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size)
    policy.lm_head.weight = policy.model.embed_tokens.weight
    hazard = 1 / EOS_MEAN
    with torch.no_grad():
        policy.lm_head.bias.zero_()
        policy.lm_head.bias[PAD] = NEVER
        odds = math.log(hazard * config.vocab_size / (1 - hazard))
        policy.lm_head.bias[EOS] = odds if work.lengths == "varlen" else NEVER
    reference = LlamaForCausalLM(config)
    reference.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size)
    reference.lm_head.weight = reference.model.embed_tokens.weight
    reference.load_state_dict(policy.state_dict())
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for param in reference.parameters():  # so that the KL is not 0
            param.add_(torch.randn(param.shape, generator=noise) * 1e-3)
    reward, value = LlamaForSequenceClassification(config), LlamaForSequenceClassification(config)
    value.load_state_dict(reward.state_dict())
    return policy, reference, reward, value


def prompts(work: Work) -> list[list[int]]:
    """Random tokens for every iteration."""
    draws = torch.Generator().manual_seed(0)
    count = work.batch * (work.iterations + 1)
    lengths = torch.randint(SHORTEST_PROMPT, LONGEST_PROMPT + 1, (count,), generator=draws)
    top = SIZES[work.size]["vocab_size"]
    return [torch.randint(3, top, (int(length),), generator=draws).tolist() for length in lengths]


def tokenizer(work: Work) -> PreTrainedTokenizerFast:
    """Token i is the word t<i>."""
    words = {"<pad>": PAD, "<eos>": EOS, "<bos>": BOS}
    words |= {f"t{index}": index for index in range(3, SIZES[work.size]["vocab_size"])}
    from tokenizers.pre_tokenizers import WhitespaceSplit

    plain = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    plain.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", padding_side="left"
    )


def memory_mb(field: str) -> float:
    """``VmRSS`` or ``VmHWM`` of this process."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def summary(work: Work, rows: list[dict[str, float]], base_mb: float, trained: int) -> dict[str, Any]:
    """Medians over the iterations after the first; seconds are process CPU seconds, ``wall`` excepted."""
    kept = rows[1:]
    medians = {name: statistics.median(row[name] for row in kept) for name in kept[0]}
    return asdict(work) | {
        "seconds": medians,
        "spread": [min(row["total"] for row in kept), max(row["total"] for row in kept)],
        # Adam's two moments appear at the first step, after the base was read; both sides hold them in fp32.
        "peak_mb_above_start": memory_mb("VmHWM") - base_mb - 8 * trained / 2**20,
    }
