"""A reward model as everyone opens it: ``AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)``.

Those classes have a head without a bias, and our scores have a zero of their own (``ScalarModel.score_bias``). The constant
is put where the family has room for one, so that the scores are the same:

- in the bias of the last norm, along the head's weights (GPT-2, GPT-NeoX, Phi, ...);
- where norms have no bias, in a decoder layer behind the last one that writes the score and a constant far larger than it
  into two entries of the stream, so that the last norm, divided by that constant, changes neither (Llama, Qwen2, Mistral).

``ScalarModel.load`` takes the trunk out again, bit for bit.
"""

import copy
import json
import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.activations import ACT2FN
from transformers.utils.logging import disable_progress_bar

from tasks.engine.errors import ModelError
from tasks.language.adapters import merged, twin
from tasks.language.batches import pad_batch
from tasks.language.loading import HEAD_FILE, ONE_AT_A_TIME
from tasks.language.models import TRUNK, ScalarModel, load_checked
from tasks.language.tokenizer import save_tokenizer

logger = logging.getLogger("plumbline")

LLAMA_LIKE = ("llama", "mistral", "qwen2")
"""Families that compute what a Llama with biases computes."""
LOUD = 1e12
"""What the score is multiplied by in the stream: what stood there before becomes rounding."""
CONSTANT = 1e5
"""The constant beside the score, in its units: a norm over both changes a score of 10 by 5e-9 of it."""
GATE = 8.0
SAME = 1e-5
"""Largest difference between both ways to score, relative to the scores."""


class Classifier(NamedTuple):
    """A sequence classifier to be written, and what of the trunk it changed."""

    model: PreTrainedModel
    changed: dict[str, Tensor]


def save_reward_model(model: ScalarModel, tokenizer: PreTrainedTokenizerBase, folder: Path | str) -> None:
    """Write a folder that this program and ``transformers`` both open, with the same scores; equal models give equal bytes.

    A family without such a class, or without room for the constant, is written with what can be opened, and a log line
    tells what is missing.
    """
    disable_progress_bar()
    folder = Path(folder)
    trunk = _apart(model.backbone)
    _give_padding_a_row(trunk, tokenizer)
    config = copy.deepcopy(trunk.config)
    made = _classifier(trunk, model, tokenizer)
    (trunk if made is None else made.model).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    head = {"weight": model.head.weight, "bias": model.head.bias, "score_bias": model.score_bias}
    parts = {name: part.detach().cpu().contiguous() for name, part in head.items()}
    parts |= {f"{TRUNK}{name}": part for name, part in ({} if made is None else made.changed).items()}
    save_file(parts, folder / HEAD_FILE, metadata={"trunk": json.dumps(_shape(config), sort_keys=True)})


def load_classifier(folder: Path | str, device: torch.device | str) -> ScalarModel:
    """Somebody's reward model: a sequence classifier with one output, as a scalar model that scores the same.

    Raises:
        ModelError: it is none, or its head is of another kind.
    """
    model = load_checked(AutoModelForSequenceClassification, folder, device, None, num_labels=1)
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or head.out_features != 1 or head.in_features != _width(model.config):
        raise ModelError(
            f"{folder}: {type(model).__name__} has no linear head of one output on its last states, expected a decoder such as "
            "LlamaForSequenceClassification with num_labels=1; choose another reward model"
        )
    scalar = ScalarModel(model.base_model)
    with torch.no_grad():
        scalar.head.weight.copy_(head.weight)
        scalar.head.bias.zero_() if head.bias is None else scalar.head.bias.copy_(head.bias)
    return scalar.to(device).eval()


def _apart(trunk: PreTrainedModel) -> PreTrainedModel:
    """A trunk to change, on the CPU, without an adapter; as few copies of its weights as there can be."""
    whole: PreTrainedModel = merged(trunk)
    if whole is not trunk:
        return whole.cpu()
    return twin(trunk) if trunk.device.type == "cpu" else copy.deepcopy(trunk).cpu()


def _give_padding_a_row(trunk: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Others embed what they pad with, so that it needs a row; what stands in it is never read."""
    pad, embedding = int(tokenizer.pad_token_id), trunk.get_input_embeddings()
    if pad >= embedding.weight.shape[0]:
        grown = torch.zeros(pad + 1, embedding.weight.shape[1])
        grown[: embedding.weight.shape[0]] = embedding.weight.detach()
        embedding.weight = nn.Parameter(grown)
        embedding.num_embeddings = trunk.config.get_text_config().vocab_size = pad + 1


@torch.no_grad()
def _classifier(trunk: PreTrainedModel, model: ScalarModel, tokenizer: PreTrainedTokenizerBase) -> Classifier | None:
    kind = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(trunk.config), None)
    if kind is None:
        logger.warning("%s has no sequence classifier; only this program opens its reward model", type(trunk).__name__)
        return None
    weight, constant = model.head.weight.detach().cpu(), float((model.head.bias - model.score_bias).detach())
    state, norm = dict(trunk.state_dict()), _last_norm(trunk)
    if norm is not None:
        direction = weight[0].double()
        changed = {norm: state[norm].clone()}
        shifted = state[norm].double() + constant * direction / direction.square().sum()
        state[norm] = shifted.to(state[norm].dtype)
        made = _filled(kind, copy.deepcopy(trunk.config), trunk, state, weight, tokenizer)
    elif _is_llama_like(trunk.config):
        changed = {"norm.weight": state["norm.weight"].clone()}
        config = _llama_config(trunk.config, state)
        state |= _constant_layer(config, state, weight)
        state["norm.weight"] = torch.ones_like(state["norm.weight"])
        root = math.sqrt(config.hidden_size)
        head = torch.zeros_like(weight)
        head[0, 0], head[0, 1] = CONSTANT / root, constant / root
        made = _filled(LlamaForSequenceClassification, config, trunk, state, head, tokenizer)
    else:
        made, changed = _filled(kind, copy.deepcopy(trunk.config), trunk, state, weight, tokenizer), {}
    _compare(made, _over(trunk, model), tokenizer, constant)
    return Classifier(made, changed)


def _over(trunk: PreTrainedModel, model: ScalarModel) -> ScalarModel:
    """The reward model on the trunk that is written: in training, frozen weights may compute in bf16."""
    written = ScalarModel(trunk)
    written.head.load_state_dict(model.head.state_dict())
    written.score_bias.copy_(model.score_bias)
    return written.eval()


def _filled(
    kind: Any,
    config: PreTrainedConfig,
    trunk: PreTrainedModel,
    state: dict[str, Tensor],
    weight: Tensor,
    tokenizer: PreTrainedTokenizerBase,
) -> PreTrainedModel:
    """A classifier over the tensors of ``state``, without copies, and what ``trunk`` computes beside its weights."""
    config.num_labels, config.pad_token_id = 1, int(tokenizer.pad_token_id)
    config.get_text_config().pad_token_id = config.pad_token_id
    config.get_text_config().eos_token_id = int(tokenizer.eos_token_id)
    with ONE_AT_A_TIME, torch.device("meta"):
        made: PreTrainedModel = kind(config)
    named = {f"{made.base_model_prefix}.{name}": value.float() for name, value in state.items()}
    made.load_state_dict(named | {"score.weight": weight}, strict=True, assign=True)
    for name, buffer in trunk.named_buffers():  # rotary frequencies and the like are in no state
        owner, _, last = name.rpartition(".")
        made.base_model.get_submodule(owner).register_buffer(last, buffer, persistent=False)
    return made.eval()


def _last_norm(trunk: PreTrainedModel) -> str | None:
    """Name of the bias of the norm behind the last layer, where it has one and the head reads its output."""
    if _width(trunk.config) != trunk.config.get_text_config().hidden_size:
        return None
    norms = [
        name
        for name, module in trunk.named_modules()
        if isinstance(module, nn.LayerNorm) and module.bias is not None and not any(map(str.isdigit, name.split(".")))
    ]
    return f"{norms[-1]}.bias" if norms and "embed" not in norms[-1] else None


def _is_llama_like(config: PreTrainedConfig) -> bool:
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return config.model_type in LLAMA_LIKE and not windowed and config.hidden_size > 1


def _llama_config(config: PreTrainedConfig, state: dict[str, Tensor]) -> LlamaConfig:
    same = ["vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"]
    same += ["hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "bos_token_id"]
    heads = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return LlamaConfig(
        **{name: copy.deepcopy(getattr(config, name)) for name in same},
        num_hidden_layers=config.num_hidden_layers + 1,
        head_dim=heads,
        attention_bias="layers.0.self_attn.q_proj.bias" in state,
        mlp_bias=True,
        tie_word_embeddings=False,
    )


def _constant_layer(config: LlamaConfig, state: dict[str, Tensor], weight: Tensor) -> dict[str, Tensor]:
    """The layer behind the last one, and zeros for the biases that the trunk has not."""
    with ONE_AT_A_TIME, torch.device("meta"):
        whole = LlamaForSequenceClassification(config).model
    shapes = {name: value.shape for name, value in whole.state_dict().items()}
    made = {name: torch.zeros(shape) for name, shape in shapes.items() if name not in state}
    layer = f"layers.{config.num_hidden_layers - 1}."
    made[f"{layer}input_layernorm.weight"].fill_(1.0)
    made[f"{layer}post_attention_layernorm.weight"] = state["norm.weight"].clone()
    made[f"{layer}mlp.gate_proj.bias"][:2] = GATE  # an open gate, so that the MLP is linear in what it reads
    made[f"{layer}mlp.up_proj.weight"][0] = weight[0]
    made[f"{layer}mlp.up_proj.bias"][1] = 1.0
    opened = float(ACT2FN[config.hidden_act](torch.tensor(GATE)))
    made[f"{layer}mlp.down_proj.weight"][0, 0] = LOUD / opened
    made[f"{layer}mlp.down_proj.weight"][1, 1] = LOUD * CONSTANT / opened
    return made


def _compare(made: PreTrainedModel, model: ScalarModel, tokenizer: PreTrainedTokenizerBase, constant: float) -> None:
    """Say so where the family has no room for the constant."""
    eos = int(tokenizer.eos_token_id)
    ordinary = [place for place in range(min(8, made.get_input_embeddings().weight.shape[0])) if place != eos]
    rows = [[*ordinary[:2], eos], [*ordinary[::-1][:4], eos], [ordinary[-1], eos]]
    rows = [[place for place in row if place != tokenizer.pad_token_id] for row in rows]
    ours = model.scores(pad_batch([row[:1] for row in rows], [row[1:] for row in rows], eos))
    theirs = torch.stack([made(input_ids=torch.tensor([row])).logits[0, 0] for row in rows])
    gap = float((ours - theirs).abs().max())
    if gap > SAME * max(1.0, float(ours.abs().max())):
        words = "%s has no room for the zero of a reward model: opened elsewhere, its scores are off by %.3g (constant: %.3g)"
        logger.warning(words, type(made).__name__, gap, constant)


def _shape(config: PreTrainedConfig) -> dict[str, Any]:
    """A configuration without notes on how and where it was written."""
    notes = ("architectures", "dtype", "_name_or_path", "transformers_version")
    return {name: value for name, value in config.to_dict().items() if name not in notes}


def _width(config: PreTrainedConfig) -> int:
    text = config.get_text_config()
    return int(getattr(text, "word_embed_proj_dim", None) or text.hidden_size)
