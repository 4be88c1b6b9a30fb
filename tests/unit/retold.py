"""A Llama, its two heads and Adam told again in float64, rows of one length at a time: no padding, no cache, no project code.

The networks only lend their weights. Used by the tests that retell whole training steps.
"""

import math
from typing import Any

import torch
from torch import Tensor

DOUBLE = torch.float64
Gradients = dict[str, Tensor]


class Retold:
    """The same function as a project network; ``weights`` are its own copies, by the network's parameter names."""

    def __init__(self, network: Any) -> None:
        self.scalar = hasattr(network, "backbone")
        self.shape = network.backbone.config if self.scalar else network.config
        self.weights = {name: p.detach().to(DOUBLE).clone().requires_grad_() for name, p in network.named_parameters()}
        self.shift = float(network.score_bias) if self.scalar else 0.0

    def logits(self, ids: Any) -> Tensor:
        """(..., T, V) for ids (..., T): column t predicts token t + 1."""
        return self._states("model.", torch.tensor(ids)) @ self.weights["model.embed_tokens.weight"].T  # tied

    def numbers(self, ids: list[int]) -> Tensor:
        """(T,): the scalar head after every token."""
        states = self._states("backbone.", torch.tensor(ids))
        return states @ self.weights["head.weight"][0] + self.weights["head.bias"] - self.shift

    def gradients(self, loss: Tensor) -> Gradients:
        found = torch.autograd.grad(loss, list(self.weights.values()))
        return dict(zip(self.weights, found, strict=True))

    def distance(self, network: Any) -> float:
        """The largest difference of a parameter."""
        gaps = [
            (p.detach().to(DOUBLE) - self.weights[name].detach()).abs().max() for name, p in network.named_parameters()
        ]
        return float(torch.stack(gaps).max())

    def _states(self, prefix: str, tokens: Tensor) -> Tensor:  # (..., T) -> (..., T, D)
        weights, shape = self.weights, self.shape
        heads, length = shape.num_attention_heads, tokens.shape[-1]
        width = shape.hidden_size // heads
        x = weights[prefix + "embed_tokens.weight"][tokens]
        # transformers trains no input row of the pad token, also where a policy draws it as a word
        x = torch.where((tokens == shape.pad_token_id).unsqueeze(-1), x.detach(), x)
        theta = shape.rope_parameters["rope_theta"]
        turns = torch.outer(
            torch.arange(length, dtype=DOUBLE), theta ** -(torch.arange(0, width, 2, dtype=DOUBLE) / width)
        )
        future = torch.arange(length).unsqueeze(0) > torch.arange(length).unsqueeze(1)

        def normed(y: Tensor, name: str) -> Tensor:
            return y * torch.rsqrt(y.square().mean(dim=-1, keepdim=True) + shape.rms_norm_eps) * weights[prefix + name]

        def turned(y: Tensor) -> Tensor:  # (..., heads, T, width): pairs (i, i + width / 2) as complex numbers
            half = width // 2
            spun = torch.complex(y[..., :half], y[..., half:]) * torch.polar(torch.ones_like(turns), turns)
            return torch.cat([spun.real, spun.imag], dim=-1)

        for layer in range(shape.num_hidden_layers):
            name = f"layers.{layer}."
            y = normed(x, name + "input_layernorm.weight")
            query, key, value = (
                (y @ weights[f"{prefix}{name}self_attn.{part}_proj.weight"].T)
                .unflatten(-1, (heads, width))
                .transpose(-3, -2)
                for part in "qkv"
            )
            looks = turned(query) @ turned(key).transpose(-2, -1) / math.sqrt(width)
            seen = torch.softmax(looks.masked_fill(future, -math.inf), dim=-1) @ value
            x = x + seen.transpose(-3, -2).flatten(-2) @ weights[f"{prefix}{name}self_attn.o_proj.weight"].T
            y = normed(x, name + "post_attention_layernorm.weight")
            gate, up, down = (weights[f"{prefix}{name}mlp.{part}_proj.weight"].T for part in ("gate", "up", "down"))
            opened = y @ gate
            x = x + (opened / (1 + torch.exp(-opened)) * (y @ up)) @ down
        return normed(x, "norm.weight")


def token_logprobs(network: Retold, prompt: list[int], response: list[int], temperature: float = 1.0) -> Tensor:
    """(R,) log-probability of each response token."""
    return drawn(network.logits(prompt + response)[len(prompt) - 1 : -1] / temperature, torch.tensor(response))


def drawn(logits: Tensor, tokens: Tensor) -> Tensor:
    """(...,) log-probability of each token under the softmax of its (..., V) logits."""
    return logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - torch.logsumexp(logits, dim=-1)


def norm(gradients: Gradients) -> float:
    return math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))


class RetoldAdam:
    """Clipping, decoupled decay of matrices and Adam, from the formulas; ``knobs`` are those of the YAML file."""

    def __init__(self, network: Retold, knobs: dict[str, Any]) -> None:
        self.network, self.knobs, self.steps = network, knobs, 0
        self.first = {name: torch.zeros_like(w) for name, w in network.weights.items()}
        self.second = {name: torch.zeros_like(w) for name, w in network.weights.items()}

    def step(self, gradients: Gradients, rate: float) -> float:
        """The gradients' norm before clipping."""
        knobs, before = self.knobs, norm(gradients)
        self.steps += 1
        for name, weight in self.network.weights.items():
            g = gradients[name] * min(1.0, knobs["max_grad_norm"] / before)
            self.first[name] = knobs["beta1"] * self.first[name] + (1 - knobs["beta1"]) * g
            self.second[name] = knobs["beta2"] * self.second[name] + (1 - knobs["beta2"]) * g**2
            mean = self.first[name] / (1 - knobs["beta1"] ** self.steps)
            correction = math.sqrt(1 - knobs["beta2"] ** self.steps)
            if knobs["epsilon_placement"] == "before_correction":
                spread = (self.second[name].sqrt() + knobs["epsilon"]) / correction
            else:
                spread = self.second[name].sqrt() / correction + knobs["epsilon"]
            decay = knobs["weight_decay"] if weight.ndim > 1 else 0.0
            weight.data = weight.data * (1 - rate * decay) - rate * mean / spread
        return before
