"""All parts of a declared reward, asked together."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from tasks.engine.config import RuntimeConfig
from tasks.engine.ranks import here
from tasks.language.models import ScalarModel
from tasks.language.plain_layout import BARE
from tasks.language.scorer import score_rows
from tasks.records.records import Prompt, turns_of
from tasks.rewards.chat import ChatReward, home
from tasks.rewards.combine import cautious_mean, gated, spread, weighted_minimum, weighted_sum
from tasks.rewards.config import ChatPart, FunctionPart, RewardModelPart, RewardsConfig
from tasks.rewards.function import FunctionReward
from tasks.rewards.models import ModelReward


class Answered(NamedTuple):
    """B responses, as text and as the run's own reward models read them."""

    prompts: Sequence[Prompt]
    responses: Sequence[str]
    finished: Sequence[bool]
    prompt_ids: Sequence[list[int]]
    response_ids: Sequence[list[int]]


class Scored(NamedTuple):
    """What the parts said."""

    total: Tensor  # (B,)
    figures: dict[str, float]
    """``reward/<part>`` and the like, for tracking."""


class Rewards:
    """Asks every part and combines what they say.

    Args:
        config: the declared list.
        own: the run's own reward models: one, an ensemble, or none where no part refers to them.
        pad_id: fills rows of token ids.
        runtime: device and micro-batches.

    Raises:
        PlumblineError: a part that cannot be loaded.
    """

    def __init__(self, config: RewardsConfig, own: Sequence[ScalarModel], pad_id: int, runtime: RuntimeConfig) -> None:
        assert bool(own) == (config.own is not None), "a part that is the run's own has its models, and no other part"
        self._config, self._own, self._pad, self._runtime = config, list(own), pad_id, runtime
        self._texts: dict[str, FunctionReward | ChatReward] = {}
        self._models: dict[str, ModelReward] = {}
        for part in config.parts:
            if isinstance(part, FunctionPart):
                self._texts[part.name] = FunctionReward(part.name, part.function)
            elif isinstance(part, ChatPart):
                self._texts[part.name] = ChatReward(part, home())
            elif part.folder is not None:
                self._models[part.name] = ModelReward(part, runtime)

    def __call__(self, answered: Answered, first: Tensor | None = None) -> Scored:
        """One score a response.

        Args:
            answered: the responses.
            first: (B,) scores of the first of the run's own reward models, where they are known.

        Raises:
            PlumblineError: a part that fails.
        """
        figures: dict[str, float] = {}
        requests = [BARE.prompt(turns_of(prompt)) for prompt in answered.prompts]
        scores = {}
        for part in self._config.parts:
            if part.name in self._texts:
                # A service is asked by one rank, and a function need not say the same twice.
                found = here().once(partial(self._texts[part.name].score, requests, answered.responses))
                score = torch.tensor(found, dtype=torch.float32, device=self._runtime.device)
            elif part.name in self._models:
                score = self._models[part.name].score(answered.prompts, answered.responses, answered.finished)
            else:
                assert isinstance(part, RewardModelPart)
                members = self._members(answered, first)
                score = cautious_mean(members, part.spread_penalty)
                if len(members) > 1:
                    figures["reward/disagreement"] = spread(members).mean().item()
            scores[part.name] = score
            figures[f"reward/{part.name}"] = score.mean().item()
            figures[f"reward/{part.name}_std"] = score.std(correction=0).item()
        total, share = _combined(self._config, scores)
        return Scored(total, figures if share is None else figures | {"reward/guarded_share": share})

    def _members(self, answered: Answered, first: Tensor | None) -> Tensor:  # (M, B)
        rest = self._own if first is None else self._own[1:]
        ids = (answered.prompt_ids, answered.response_ids, self._pad, self._runtime)
        found = [torch.tensor(score_rows(model, *ids), device=self._runtime.device) for model in rest]
        return torch.stack(found if first is None else [first, *found])


def _combined(config: RewardsConfig, scores: Mapping[str, Tensor]) -> tuple[Tensor, float | None]:
    """The one score, and the share of responses for which the guard decided."""
    weights = {part.name: part.weight for part in config.parts}
    if config.rule == "minimum":
        return weighted_minimum(list(scores.values()), list(weights.values())), None
    if config.rule == "weights":
        return weighted_sum(list(scores.values()), list(weights.values())), None
    assert config.guard is not None and config.guard_below is not None
    guard = scores[config.guard]
    others = [name for name in scores if name != config.guard]
    rest = weighted_sum([scores[name] for name in others], [weights[name] for name in others])
    total = gated(guard, config.guard_below, weights[config.guard] * guard, rest)
    return total, (guard < config.guard_below).float().mean().item()
