"""Where model families differ: the trunk, the output head, the residual branches, the dropouts.

Works for causal language models of ``transformers`` that have a trunk, a linear output head, and decoder layers with
one attention and one MLP module: Llama, Mistral, Qwen, Gemma, Phi, GPT-2, GPT-NeoX and their kin.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from tasks.engine.errors import ModelError
from tasks.language import recompute
from tasks.language.attention import PACKED, attending
from tasks.language.batches import TokenBatch
from tasks.language.recompute import recomputed

logger = logging.getLogger(__name__)

LAYER_LISTS = ("layers", "h", "decoder.layers")
"""Names under which trunks keep their decoder layers; the last is OPT's."""
ATTENTION_NAMES = ("self_attn", "attn", "attention")
MLP_NAMES = ("mlp", "feed_forward", "fc2")
"""The last is of families whose layers have the MLP's two matrices side by side, such as OPT."""
WORTH_CUTTING = 0.9
"""Share of a packed row's tokens above which it does not pay to take the others out of the last layer's MLP."""
PACKED_FAMILIES = frozenset(
    {
        "cohere",
        "cohere2",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gpt2",
        "gpt_neox",
        "granite",
        "llama",
        "mistral",
        "mixtral",
    }
    | {"olmo", "olmo2", "phi", "phi3", "qwen2", "qwen3", "smollm3", "starcoder2"}
)
"""``model_type`` of the families whose packed rows are tested against their sequences one by one; others are padded."""


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


def hidden_states(trunk: PreTrainedModel, batch: TokenBatch, read: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Final hidden states of some tokens, with as little work as the family allows.

    Args:
        trunk: see ``trunk_of``.
        batch: right-padded rows; any id may stand in the padding, even one outside the vocabulary.
        read: (B,) tokens of each row that the trunk reads, at least 1; on the CPU, as the next two.
        rows: (M,) the row of each token that is asked for.
        columns: (M,) its place in the row, less than the row's ``read``; no token is asked for twice.

    Returns:
        (M, D), differentiable.
    """
    width = int(read.max())
    ids = batch.input_ids[:, :width]
    places = torch.arange(width)
    real = places < read[:, None]
    if packs(trunk):
        wanted, positions = (read.cumsum(0) - read)[rows] + columns, places.expand_as(real)[real]
        ids = ids[real.nonzero(as_tuple=True)]
        return packed_states(trunk, ids, positions.to(ids.device), read.tolist(), wanted.to(ids.device))
    # Right padding and causal attention need neither mask nor positions, and attention then takes its fastest path.
    with recomputed(_recomputable(trunk)):
        output = trunk(input_ids=torch.where(real.to(ids.device), ids, ids[:, :1]), use_cache=False)
    return output.last_hidden_state[rows, columns]  # type: ignore[no-any-return]


def packed_states(
    trunk: PreTrainedModel,
    ids: Tensor,
    positions: Tensor,
    lengths: Sequence[int],
    wanted: Tensor,
    cache: Cache | None = None,
) -> Tensor:
    """Final hidden states of some tokens of sequences that lie one behind another.

    Args:
        trunk: of a family that ``packs``.
        ids: (N,).
        positions: (N,) of each token in its sequence.
        lengths: tokens of each sequence; they add up to N.
        wanted: (M,) places of the tokens that are asked for, each once.
        cache: keeps keys and values when given.

    Returns:
        (M, D).
    """

    @contextmanager
    def surroundings() -> Iterator[None]:
        with attending(trunk, PACKED), _only(_last_mlp(trunk), wanted, len(ids)):
            yield

    with surroundings(), recomputed(_recomputable(trunk), surroundings):
        output = trunk(
            input_ids=ids[None],
            position_ids=positions[None],
            sequence_lengths=lengths,
            past_key_values=cache,
            use_cache=cache is not None,
        )
    return output.last_hidden_state[0, wanted]  # type: ignore[no-any-return]


@contextmanager
def _only(mlp: nn.Module, wanted: Tensor, tokens: int) -> Iterator[None]:
    """Inside this context the module computes the wanted tokens of a packed row and adds nothing to the others.

    Nobody reads the others behind the last layer; in a PPO batch they are the prompts, in scoring all but one a row.
    """

    def cut(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # (1, N, D) -> (1, M, D)
        states, *others = inputs
        return (states[:, wanted], *others)

    def spread(_module: nn.Module, _inputs: Any, output: Any) -> Any:  # (1, M, D) -> (1, N, D)
        first = output[0] if isinstance(output, tuple) else output
        whole = first.new_zeros(1, tokens, first.shape[-1]).index_copy(1, wanted, first)
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    few = _worth_cutting(len(wanted), tokens)
    hooks = [mlp.register_forward_pre_hook(cut), mlp.register_forward_hook(spread)] if few else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _worth_cutting(wanted: int, tokens: int) -> bool:
    return wanted <= WORTH_CUTTING * tokens


def tokens_per_branch(trunk: PreTrainedModel, batch: TokenBatch) -> list[int]:
    """How many tokens each residual branch computes when the states before a batch's responses are asked for."""
    read = (batch.lengths - 1).clamp(min=1)
    branches = residual_branches(trunk)
    if not packs(trunk):
        return [int(read.max()) * len(read)] * len(branches)
    tokens, wanted = int(read.sum()), int(batch.response_lengths.sum())
    last = _last_mlp(trunk)
    return [wanted if branch is last and _worth_cutting(wanted, tokens) else tokens for branch in branches]


def packs(trunk: PreTrainedModel) -> bool:
    """Whether this family is known to compute the same on packed rows."""
    kind = trunk.config.model_type
    if kind in PACKED_FAMILIES:
        return True
    _say_once(kind)
    return False


@lru_cache
def _say_once(kind: str) -> None:
    logger.info("model family %s is not among those tried with packed rows: its batches are padded", kind)


def residual_branches(model: nn.Module) -> list[nn.Module]:
    """The modules whose output is added to the residual stream: each layer's attention and MLP.

    Raises:
        ModelError: the family keeps them where this function does not look.
    """
    trunk = getattr(model, "base_model", model)
    layers = _layers_for(trunk, "residual dropout", "residual_dropout=0")
    branches = []
    for index, layer in enumerate(layers):
        for names in (ATTENTION_NAMES, MLP_NAMES):
            found = _children(layer, names)
            if not found:
                raise ModelError(
                    f"{type(trunk).__name__}, layer {index}: found no module named {' or '.join(names)}, which "
                    "residual dropout needs; set residual_dropout=0 for this family"
                )
            branches += found
    return branches


def _recomputable(trunk: nn.Module) -> Iterable[nn.Module]:
    if not recompute.wanted():
        return ()
    return _layers_for(trunk, "gradient checkpointing", "runtime.gradient_checkpointing=false")


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Of a model or a trunk, each of which the ranks of a stage divide as one.

    Raises:
        ModelError: the family keeps them where this function does not look.
    """
    return _layers_for(model.base_model, "sharding", "runtime.shard=none")


def _layers_for(trunk: nn.Module, purpose: str, without: str) -> nn.ModuleList:
    layers = _layers(trunk)
    if layers is None:
        raise ModelError(
            f"{type(trunk).__name__}: found no decoder layers under {' or '.join(LAYER_LISTS)}, which {purpose} needs; "
            f"set {without} for this family"
        )
    return layers


def _layers(trunk: nn.Module) -> nn.ModuleList | None:
    parts = dict(trunk.named_modules())
    return next((part for name in LAYER_LISTS if isinstance(part := parts.get(name), nn.ModuleList)), None)


def _children(layer: nn.Module, names: tuple[str, ...]) -> list[nn.Module]:
    return [module for name, module in layer.named_children() if name in names]


def _last_mlp(trunk: PreTrainedModel) -> nn.Module:  # of a family that packs
    layers = _layers(trunk)
    assert layers is not None, type(trunk).__name__
    (mlp,) = _children(layers[-1], MLP_NAMES)
    return mlp


def switch_dropout_off(config: Any) -> None:
    """Set every dropout probability of a model configuration to 0, before the model is built from it.

    All of PPO runs without dropout, so that ratios start at exactly 1 in train mode too; fine-tuning installs its own.
    """
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
