"""How large the networks are, from configurations alone.

A model from scratch is a Llama, whose parts are counted here; any other is built, without weights, and asked (``networks``).
"""

import math
from pathlib import Path
from typing import NamedTuple

from flows.config import RLHFConfig
from tasks.engine.config import AdapterConfig, ModelConfig
from tasks.language.reward_folder import shapes_in
from tasks.rewards.config import RewardModelPart

GATED = 4
"""Vectors that a gated MLP keeps: both projections, the activation, the product."""


class Linear(NamedTuple):
    """One linear layer."""

    name: str
    """Of its last part, as ``adapter.targets`` names it."""
    fan_in: int
    fan_out: int


class Shape(NamedTuple):
    """What the memory of a network depends on."""

    origin: str
    """Where the shape was found."""
    parameters: int
    """Of the causal LM, shared embeddings counted once."""
    trunk_parameters: int
    """Without the output head."""
    layers: int
    hidden: int
    mlp_width: int
    mlp_kept: int
    """Vectors of that width that the MLP's backward pass needs."""
    key_value_width: int
    """Numbers that one layer caches per token, keys and values each."""
    rotary: bool
    """Whether keys are turned by their position, in fp32."""
    vocabulary: int
    linear: tuple[Linear, ...]
    """Layers of the trunk that adapters can be beside."""

    def adapter_parameters(self, adapter: AdapterConfig) -> int:
        """Of the two thin matrices beside every chosen layer."""
        return sum(adapter.rank * (layer.fan_in + layer.fan_out) for layer in self.adapted(adapter))

    def adapted(self, adapter: AdapterConfig) -> list[Linear]:
        """The layers that get them."""
        return [layer for layer in self.linear if adapter.targets == "all-linear" or layer.name in adapter.targets]

    @property
    def scalar_parameters(self) -> int:
        """As reward or value model: the trunk and a linear head with its bias."""
        return self.trunk_parameters + self.hidden + 1


class Shapes(NamedTuple):
    """The two sizes of a run."""

    policy: Shape
    """Of SFT, PPO-init, the reference and PPO's policy."""
    judge: Shape
    """Of the trunk of the reward model and the value model."""


def shapes_of(config: RLHFConfig) -> Shapes:
    """Both.

    Raises:
        PlumblineError: one cannot be known without a network, or is no causal LM.
    """
    policy, body = _policy_shape(config), config.reward_model.body
    if body is None:
        return Shapes(policy, policy)
    from flows.ask.arithmetic.networks import named_shape

    return Shapes(policy, named_shape("reward_model.body", body, "dry_run.reward_model", config.dry_run.reward_model))


def _policy_shape(config: RLHFConfig) -> Shape:
    model = config.model
    if model.architecture is not None:
        return scratch_shape(model)
    from flows.ask.arithmetic.networks import named_shape

    assert model.name_or_path is not None
    return named_shape("model.name_or_path", model.name_or_path, "dry_run.policy", config.dry_run.policy)


def scratch_shape(model: ModelConfig) -> Shape:
    """The Llama that ``model.architecture`` describes, with the largest vocabulary its tokenizer may have."""
    asked, tokenizer = model.architecture, model.tokenizer
    assert asked is not None and tokenizer is not None
    hidden, inner, vocabulary = asked.hidden_size, asked.intermediate_size, tokenizer.vocab_size
    attended = asked.heads * (hidden // asked.heads)
    layer = (
        *(Linear(name, hidden, attended) for name in ("q_proj", "k_proj", "v_proj")),
        Linear("o_proj", attended, hidden),
        *(Linear(name, hidden, inner) for name in ("gate_proj", "up_proj")),
        Linear("down_proj", inner, hidden),
    )
    norms, embedding = 2 * hidden, vocabulary * hidden
    in_layers = asked.layers * (norms + sum(part.fan_in * part.fan_out for part in layer))
    trunk = embedding + in_layers + hidden  # the last norm's
    return Shape(
        origin="model.architecture; at most tokenizer.vocab_size entries",
        parameters=trunk if asked.tie_embeddings else trunk + embedding,
        trunk_parameters=trunk,
        layers=asked.layers,
        hidden=hidden,
        mlp_width=inner,
        mlp_kept=GATED,
        key_value_width=attended,
        rotary=True,
        vocabulary=vocabulary,
        linear=asked.layers * layer,
    )


def reward_folders(config: RLHFConfig) -> dict[str, int]:
    """Part of ``ppo.rewards`` -> numbers in its folder, which are kept in fp32.

    Raises:
        ModelError: there are none.
    """
    parts = [part for part in config.ppo.rewards.parts if isinstance(part, RewardModelPart) and part.folder is not None]
    return {
        part.name: sum(map(math.prod, shapes_in(Path(str(part.folder)), f"ppo.rewards part {part.name}").values()))
        for part in parts
    }
