"""Networks without weights: built on torch's ``meta`` device from their configurations, and counted."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils.logging import disable_progress_bar

from flows.ask.arithmetic.shapes import GATED, Linear, Shape
from flows.config import RLHFConfig
from tasks.engine.config import ModelConfig
from tasks.engine.errors import ConfigError, ModelError
from tasks.language.adapters import linear_layers
from tasks.language.families import trunk_of
from tasks.language.loading import ONE_AT_A_TIME

WRITTEN_OUT = ("gelu_new", "gelu_fast")
"""Activations that transformers computes in several operations, each of which keeps something (GPT-2's is one)."""


def network_config(config: RLHFConfig) -> PretrainedConfig:
    """The policy's own configuration; it must be known (``shapes_of``)."""
    model, declared = config.model, config.dry_run.policy
    if model.architecture is not None:
        return scratch_config(model)
    folder = Path(model.name_or_path or "").expanduser()
    if (folder / "config.json").is_file() or declared is None:
        with ONE_AT_A_TIME:
            return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return AutoConfig.for_model(**declared)


def scratch_config(model: ModelConfig) -> PretrainedConfig:
    """The Llama that ``model.architecture`` describes, with the largest vocabulary its tokenizer may have."""
    shape, tokenizer = model.architecture, model.tokenizer
    assert shape is not None and tokenizer is not None
    return AutoConfig.for_model(
        "llama",
        vocab_size=tokenizer.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=model.context_tokens,
        tie_word_embeddings=shape.tie_embeddings,
    )


def shape_of(config: PretrainedConfig, origin: str) -> Shape:
    """Count the parameters of a model that is never given memory."""
    model = without_weights(config, origin)
    text = config.get_text_config()
    trunk = trunk_of(model)
    heads = text.num_attention_heads
    per_head = getattr(text, "head_dim", None) or text.hidden_size // heads
    groups = getattr(text, "num_key_value_heads", None) or heads
    return Shape(
        origin=origin,
        parameters=sum(p.numel() for p in model.parameters()),
        trunk_parameters=sum(p.numel() for p in trunk.parameters()),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        mlp_width=getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * text.hidden_size,
        mlp_kept=_mlp_kept(model, text),
        key_value_width=groups * per_head,
        rotary=any("rotary" in name for name, _ in model.named_modules()),
        vocabulary=text.vocab_size,
        linear=tuple(_linear(name, layer) for name, layer in linear_layers(model).items()),
    )


def without_weights(config: PretrainedConfig, origin: str) -> PreTrainedModel:
    """The modules of a model that is never given memory.

    Raises:
        ModelError: it is no causal LM.
    """
    disable_progress_bar()
    try:
        with ONE_AT_A_TIME, torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ModelError(
            f"{origin}: {type(config).__name__} builds no causal language model ({error}); choose one that does"
        ) from error


def _linear(name: str, layer: nn.Module) -> Linear:
    weight: Any = layer.weight
    fan_in, fan_out = weight.shape if isinstance(layer, Conv1D) else reversed(weight.shape)
    return Linear(name.rpartition(".")[2], fan_in, fan_out)


def _mlp_kept(model: PreTrainedModel, config: PretrainedConfig) -> int:
    if any(name.endswith("gate_proj.weight") for name, _ in model.named_parameters()):
        return GATED
    activation = getattr(config, "activation_function", None) or getattr(config, "hidden_act", None)
    return 5 if activation in WRITTEN_OUT else 2  # before and after; and what lies between, where it is spelt out


def named_shape(key: str, name: str, declared_key: str, declared: dict[str, Any] | None) -> Shape:
    """Of a model folder, or of the shape that is declared in its stead.

    Raises:
        ModelError: neither is there.
        ConfigError: what is declared is no shape.
    """
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        with ONE_AT_A_TIME:
            found = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        return shape_of(found, f"{folder}/config.json")
    if declared is None:
        raise ModelError(
            f"{key}: found no {folder}/config.json, so its size is not known; expected a local model folder, or its "
            f"shape in {declared_key}, such as '{declared_key}={{model_type: gpt2, n_embd: 768}}'"
        )
    kind = declared.get("model_type")
    if kind is None:
        raise ConfigError(f"{declared_key}: found no model_type, expected a Hugging Face configuration; add model_type")
    try:
        found = AutoConfig.for_model(kind, **{name: value for name, value in declared.items() if name != "model_type"})
    except ValueError as error:
        raise ConfigError(f"{declared_key}.model_type: {kind!r} is not known to transformers; correct it") from error
    return shape_of(found, declared_key)
