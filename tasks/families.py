"""Where model families differ: the trunk, the output head, the residual branches, the dropouts.

Works for causal language models of ``transformers`` that have a trunk, a linear output head, and decoder layers with
one attention and one MLP module: Llama, Mistral, Qwen, Gemma, Phi, GPT-2, GPT-NeoX and their kin.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.batches import TokenBatch
from tasks.errors import ModelError

LAYER_LISTS = ("layers", "h")
"""Names under which trunks keep their decoder layers."""
ATTENTION_NAMES = ("self_attn", "attn", "attention")
MLP_NAMES = ("mlp", "feed_forward")


def trunk_of(model: PreTrainedModel) -> PreTrainedModel:
    """The model without its output head: token ids to final hidden states.

    Raises:
        ModelError: the model is not a decoder with a trunk of its own.
    """
    trunk = model.base_model
    if trunk is model or not hasattr(model, "get_output_embeddings") or model.get_output_embeddings() is None:
        raise ModelError(
            f"{type(model).__name__}: found no trunk and output head, expected a decoder-only language model such as "
            "LlamaForCausalLM or GPT2LMHeadModel; choose another model"
        )
    return trunk


def logits_of(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Output head on hidden states, with the scaling that some families apply. (..., D) -> (..., V)."""
    logits: Tensor = model.get_output_embeddings()(states)
    config = model.config
    if getattr(config, "logits_scaling", None):  # Granite
        logits = logits / config.logits_scaling
    if getattr(config, "logit_scale", None):  # Cohere
        logits = logits * config.logit_scale
    if getattr(config, "final_logit_softcapping", None):  # Gemma 2
        logits = torch.tanh(logits / config.final_logit_softcapping) * config.final_logit_softcapping
    return logits


def hidden_states(trunk: PreTrainedModel, batch: TokenBatch, read: Tensor) -> Tensor:
    """Run the trunk over the rows' first tokens, as many as are needed.

    Args:
        trunk: see ``trunk_of``.
        batch: right-padded rows.
        read: (B,) tokens of each row that the trunk reads; what lies behind is replaced by the row's first token, so
            any id may stand there, even one outside the vocabulary.

    Returns:
        (B, max(read), D) final hidden states; those behind a row's ``read`` tokens mean nothing.
    """
    width = int(read.max())
    ids = batch.input_ids[:, :width]
    behind = torch.arange(width, device=ids.device) >= read[:, None]
    # Right padding and causal attention need neither mask nor positions, and attention then takes its fastest path.
    output = trunk(input_ids=torch.where(behind, ids[:, :1], ids), use_cache=False)
    return output.last_hidden_state  # type: ignore[no-any-return]


def residual_branches(model: nn.Module) -> list[nn.Module]:
    """The modules whose output is added to the residual stream: each layer's attention and MLP.

    Raises:
        ModelError: the family keeps them where this function does not look.
    """
    trunk = getattr(model, "base_model", model)
    layers = next((getattr(trunk, name) for name in LAYER_LISTS if hasattr(trunk, name)), None)
    if layers is None:
        raise ModelError(
            f"{type(trunk).__name__}: found no decoder layers under {' or '.join(LAYER_LISTS)}, which residual dropout "
            "needs; set residual_dropout=0 for this family"
        )
    branches = []
    for index, layer in enumerate(layers):
        for names in (ATTENTION_NAMES, MLP_NAMES):
            found = [module for name, module in layer.named_children() if name in names]
            if not found:
                raise ModelError(
                    f"{type(trunk).__name__}, layer {index}: found no module named {' or '.join(names)}, which "
                    "residual dropout needs; set residual_dropout=0 for this family"
                )
            branches += found
    return branches


def switch_dropout_off(config: Any) -> None:
    """Set every dropout probability of a model configuration to 0, before the model is built from it.

    All of PPO runs without dropout, so that ratios start at exactly 1 in train mode too; fine-tuning installs its own.
    """
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
