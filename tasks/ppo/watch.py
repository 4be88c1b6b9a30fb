"""A PPO run under watch: held-out judges score its rollouts, the sentinel reads its history, the best weights are kept.

The watched learner's weights, random numbers and optimizers are never touched, so a watched run and an unwatched one end
with equal weights, unless the sentinel may stop it, the selection takes another iteration's weights, or the brake acts.
"""

import itertools
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.engine.checkpoint import Inspection
from tasks.engine.config import RuntimeConfig
from tasks.language.adapters import snapshot
from tasks.language.models import ScalarModel
from tasks.language.scorer import score_rows
from tasks.ppo.brake import Kept, held, keep_best, return_to
from tasks.ppo.judged import JudgedWeights
from tasks.ppo.learner import PPOLearner, ShownEpisode
from tasks.ppo.rollout import Episodes
from tasks.ppo.sentinel import (
    BIGRAMS,
    EOS_RATE,
    JUDGES,
    KL,
    MOST_COMMON,
    Row,
    held_out_score,
    held_out_spread,
    inspect,
    rules_in_force,
    window_means,
)
from tasks.ppo.watch_report import Intervention, SentinelWarning, WatchReport
from tasks.sandbox.gold import gold_score
from tasks.sandbox.world import World

# What a rerun reproduces bit for bit; speed is logged but not kept.
CURVES = (
    KL,
    "objective/score",
    "objective/reward",
    "policy/entropy",
    "response/length",
    EOS_RATE,
    BIGRAMS,
    MOST_COMMON,
    "ptx/loss",
    "kl/beta",
    *(name(judge) for judge in JUDGES for name in (held_out_score, held_out_spread)),
)
RETURNING = ("rollback", "stop")
"""Brakes that go back to the best weights."""


class HeldOutJudge(Protocol):
    """Scores an iteration's responses; its opinion is never trained on."""

    name: str

    def score(self, samples: Sequence[ShownEpisode], episodes: Episodes) -> list[float]:
        """One score per episode, higher is better."""
        ...


class GoldJudge:
    """The embedded world's gold labeler."""

    name = "gold"

    def __init__(self, world: World) -> None:
        self.world = world

    def score(self, samples: Sequence[ShownEpisode], episodes: Episodes) -> list[float]:
        """The gold utility of each response."""
        return [gold_score(self.world, item.prompt, item.response, item.finished).total for item in samples]


class IndependentJudge:
    """A reward model that PPO does not optimise."""

    name = "independent"

    def __init__(self, model: ScalarModel, pad_id: int, runtime: RuntimeConfig) -> None:
        self.model, self.pad_id, self.runtime = model.eval(), pad_id, runtime

    def score(self, samples: Sequence[ShownEpisode], episodes: Episodes) -> list[float]:
        """Raw scores, before any rule about missing EOS."""
        return score_rows(self.model, episodes.prompts, episodes.scored, self.pad_id, self.runtime)


class Selected(NamedTuple):
    """The weights that the best window so far is of."""

    iteration: int
    score: float
    weights: dict[str, Tensor]


class WatchedLearner:
    """A ``PPOLearner`` with its history, its warnings and the weights to ship.

    Args:
        learner: trained as it would be without the watch.
        judges: may be empty.
    """

    def __init__(self, learner: PPOLearner, judges: Sequence[HeldOutJudge]) -> None:
        self.learner, self.judges, self.config = learner, list(judges), learner.config
        self.completed_steps = learner.completed_steps
        self.history: list[Row] = []
        self.warnings: dict[str, SentinelWarning] = {}
        self._stopped = False
        self._selected: Selected | None = None
        self.interventions: list[Intervention] = []
        self._kept: Kept | None = None
        chosen = self.config.selection != "last" or self.config.brake in RETURNING
        self._judged = JudgedWeights(learner.networks.policy, self.config.sentinel.window) if chosen else None

    @property
    def total_steps(self) -> int:
        """Iterations of the run: those planned, or those done once the sentinel has stopped it."""
        return self.completed_steps if self._stopped else self.learner.total_steps

    def step(self) -> dict[str, float]:
        """One iteration of PPO, then the judges' opinion of its rollouts and the sentinel's of its history."""
        due = bool(self.config.sentinel.every) and self.completed_steps % self.config.sentinel.every == 0
        if due and self._judged:
            self._judged.add(self.learner.networks.policy)  # it draws what the judges score
        metrics = self.learner.step()
        step = self.completed_steps = self.learner.completed_steps
        episodes = self.learner.last_episodes
        assert episodes is not None
        ended = zip(episodes.scored, episodes.finished, strict=True)
        metrics |= repetition_statistics([response[:-1] if finished else response for response, finished in ended])
        if due:
            metrics |= self._held_out_scores(episodes)
        self.history.append({"step": float(step)} | {name: metrics[name] for name in CURVES if name in metrics})
        metrics |= self._inspect(step)
        self._select(step)
        if self.config.brake != "off":
            self._brake(step)
            metrics["brake/interventions"] = float(len(self.interventions))
        return metrics

    def final_policy(self) -> PreTrainedModel:
        """A copy of the policy that holds the averaged weights, or those that the best window is of."""
        chosen = self._shipped
        if chosen is None:
            return self.learner.final_policy()
        policy: PreTrainedModel = snapshot(self.learner.networks.policy)
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                if name in chosen.weights:  # else it is frozen
                    parameter.copy_(chosen.weights[name])
        return policy

    def report(self) -> WatchReport:
        """The watch so far."""
        names = [judge.name for judge in self.judges]
        return WatchReport(
            judges=names,
            rules=rules_in_force(self.config.sentinel, names),
            warnings=list(self.warnings.values()),
            iterations=self.completed_steps,
            planned_iterations=self.learner.total_steps,
            stopped_early=self._stopped and self.completed_steps < self.learner.total_steps,
            selection=self.config.chosen_by if self._shipped else self.config.selection,
            selected_iteration=self._shipped.iteration if self._shipped else self.completed_steps,
            interventions=self.interventions,
        )

    @property
    def _shipped(self) -> Selected | Kept | None:
        """The weights to ship where they are not the last: those of the selection, or the best once the brake came to that."""
        acted = self.config.brake in RETURNING and bool(self.interventions)
        return self._kept if acted else self._selected

    def inspection(self) -> Inspection:
        """The latest iteration's episodes, for looking into a step that went wrong."""
        return self.learner.inspection()

    def state_dict(self) -> dict[str, Any]:
        """The learner's state and everything the watch remembers."""
        return {
            "learner": self.learner.state_dict(),
            "history": self.history,
            "warnings": [warning.model_dump() for warning in self.warnings.values()],
            "stopped": self._stopped,
            "selected": None if self._selected is None else self._selected._asdict(),
            "interventions": [intervention.model_dump() for intervention in self.interventions],
            "kept": None if self._kept is None else self._kept._asdict(),
            "judged": None if self._judged is None else self._judged.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken."""
        self.learner.load_state_dict(state["learner"])
        self.completed_steps = self.learner.completed_steps
        self.history = list(state["history"])
        self.warnings = {item["rule"]: SentinelWarning.model_validate(item) for item in state["warnings"]}
        self._stopped = state["stopped"]
        self._selected = None if state["selected"] is None else Selected(**state["selected"])
        self.interventions = [Intervention.model_validate(item) for item in state["interventions"]]
        self._kept = None if state["kept"] is None else Kept(**state["kept"])
        if self._judged is not None:
            self._judged.load_state_dict(state["judged"])

    def _held_out_scores(self, episodes: Episodes) -> dict[str, float]:
        found: dict[str, float] = {}
        samples = self.learner.samples(len(episodes.prompts))
        for judge in self.judges:
            scores = judge.score(samples, episodes)
            found[held_out_score(judge.name)] = statistics.fmean(scores)
            found[held_out_spread(judge.name)] = statistics.pstdev(scores)
        return found

    def _inspect(self, step: int) -> dict[str, float]:
        holding = {finding.rule: finding for finding in inspect(self.history, self.config.sentinel)}
        for rule, finding in holding.items():
            known = self.warnings.get(rule)
            self.warnings[rule] = (
                known.model_copy(update={"last_iteration": step})
                if known
                else SentinelWarning(first_iteration=step, last_iteration=step, **finding._asdict())
            )
        self._stopped = self.config.sentinel.early_stop and bool(self.warnings)
        names = [judge.name for judge in self.judges]
        return {f"sentinel/{rule}": float(rule in holding) for rule in rules_in_force(self.config.sentinel, names)}

    def _select(self, step: int) -> None:
        """Keep the weights of the last window while its mean score is the best."""
        if self.config.selection == "last" or self._judged is None:
            return
        metric = held_out_score(self.config.selection)
        means = window_means(self.history, metric, self.config.sentinel.window)
        if not means or metric not in self.history[-1]:  # too few scores yet, or none this iteration
            return
        score = means[-1]
        if self._selected is None or score > self._selected.score:
            self._selected = Selected(step, score, self._judged.copy())

    def _brake(self, step: int) -> None:
        """Keep the best weights, and act once they are left too far behind."""
        config, action = self.config, self.config.brake
        self._kept = keep_best(self.history, config, self._kept, self._judged)
        finding = held(self.history, config, self.interventions[-1].iteration if self.interventions else 0)
        if finding is None or self._kept is None or action == "off":
            return
        if action in ("beta", "rollback"):
            self.learner.beta *= config.brake_factor
        if action == "rollback":
            return_to(self.learner, self._kept.weights)
        self._stopped = self._stopped or action == "stop"
        self.interventions.append(
            Intervention(
                iteration=step,
                action=action,
                rule=finding.rule,
                found=finding.found,
                limit=finding.limit,
                reason=finding.reason,
                beta=self.learner.beta,
                best_iteration=self._kept.iteration,
            )
        )


def repetition_statistics(responses: Sequence[Sequence[int]]) -> dict[str, float]:
    """How much an iteration's responses (token ids without EOS) repeat themselves and each other.

    ``response/distinct_bigrams``: share of a response's bigrams that differ, mean over responses with a bigram.
    ``response/most_common_share``: share of the responses that equal the most common one.
    """
    shares = [len(set(pairs)) / len(pairs) for response in responses if (pairs := list(itertools.pairwise(response)))]
    most_common = Counter(tuple(response) for response in responses).most_common(1)[0][1]
    return {
        BIGRAMS: statistics.fmean(shares) if shares else 1.0,
        MOST_COMMON: most_common / len(responses),
    }
