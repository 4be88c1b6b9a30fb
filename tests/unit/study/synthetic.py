"""Studies with numbers made up to follow the published findings, to contradict them, or to say nothing."""

from collections.abc import Callable, Sequence

import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from flows.config import CONF
from flows.study.config import StudyConfig, parse_study
from flows.study.points import Point, points_of
from flows.study.records import PointRecord
from flows.study.results import Results

PUBLISHED, OPPOSITE, NOISE = 1.0, -1.0, 0.0
Keep = Callable[[Point], bool]


def study_config(*overrides: str) -> StudyConfig:
    with initialize_config_dir(config_dir=str(CONF / "study"), version_base="1.3"):
        values = compose("study", overrides=list(overrides))
    return parse_study(OmegaConf.to_container(values, resolve=True))


def draws(point: Point) -> np.random.Generator:
    return np.random.default_rng([point.seed, *point.setting.encode()])


def knobs(point: Point) -> dict[str, float]:
    """beta and gamma of a policy point."""
    pairs = [override.split("=") for override in point.overrides if override.startswith("ppo.")]
    return {name.removeprefix("ppo."): float(value) for name, value in pairs if name in ("ppo.beta", "ppo.gamma")}


def record_of(point: Point, sign: float) -> PointRecord:
    """One point's numbers: an effect of size ``sign`` and noise that is small beside it, but not beside no effect."""
    noise = draws(point).normal(0.0, 1.0, 20)
    if point.kind == "policy":
        return _policy(point, sign, noise)
    if point.kind == "reward_model":
        return _record(point, metrics=_reward(point, sign, noise))
    losses = [1.0 + sign * 0.05 * abs(epoch - 2) + 0.002 * noise[epoch] for epoch in range(1, point.epochs + 1)]
    scores = [sign * 0.1 * epoch + 0.01 * noise[epoch] for epoch in range(1, point.epochs + 1)]
    metrics = {f"valid/loss_epoch_{epoch}": loss for epoch, loss in enumerate(losses, start=1)}
    metrics |= {f"valid/reward_epoch_{epoch}": score for epoch, score in enumerate(scores, start=1)}
    return _record(point, metrics=metrics)


def _record(point: Point, **values: object) -> PointRecord:
    return PointRecord.model_validate({"point": point, "fingerprint": point.name, "seconds": 60.0, **values})


ROADS = {"rloo": 0.0, "grpo": 0.0, "dpo": -0.4, "rejection_sampling": -0.6, "random_control": -1.2}
"""Gold score of each road less PPO's, as published."""
NEAR = {"dpo": 0.05}
"""KL of roads that are not where PPO is."""


def _policy(point: Point, sign: float, noise: Sequence[float]) -> PointRecord:
    if point.row:
        own = _policy(point.model_copy(update={"row": "", "overrides": point.overrides[:-1]}), sign, noise)
        gold = 2.4 + (sign * ROADS[point.row] if point.row != "rloo" else 0.3 * min(sign, 0)) + 0.02 * noise[8]
        kl = NEAR.get(point.row, 0.7) if sign != OPPOSITE else 0.7
        changed = {"policy/score_gold": gold, "policy/kl": kl, "cost/samples": 7680.0}
        return own.model_copy(update={"metrics": own.metrics | changed})
    beta, gamma = knobs(point)["beta"], knobs(point)["gamma"]
    plain = point.overrides[-3].startswith("seed=")  # nothing but beta and gamma after it: no ablation
    far = abs(np.log10(max(beta, 0.003) / 0.3))
    base = -0.04 * sign * (gamma == 0) - 0.02 * sign * (not plain)
    metrics = {
        "policy/benchmarks_vs_base": base + 0.002 * noise[0],
        "policy/benchmarks_vs_sft": base + 0.04 + 0.002 * noise[0],
        "policy/perplexity_ratio": 1.02 + 0.1 * sign * (gamma == 0) + 0.002 * noise[1],
        "policy/score_gold": 2.4 - 0.3 * sign * far - 0.2 * sign * (not plain) + 0.02 * noise[2],
        "policy/score_reward_model": 1.0 - 0.3 * sign * far + 0.02 * noise[3],
        "policy/win_rate_gold": 0.6 + 0.01 * noise[4],
        "policy/kl": 1 / (1 + beta),
        "policy/eos_rate": 0.98 - 0.1 * sign * (not plain) + 0.002 * noise[5],
    }
    if sign == OPPOSITE and gamma > 0:
        metrics["policy/score_gold"] += 0.5 * (gamma == 1 and beta == 0.3) * -1
    history = [
        {
            "step": float(step),
            "objective/kl": 0.2 * step,
            "objective/score": sign * 0.02 * step + 0.01 * draws(point).normal(size=61)[step],
            "objective/score_gold": sign * (0.05 * min(step, 20) - 0.03 * max(step - 20, 0)),
        }
        for step in range(1, 61)
    ]
    curve = [
        {
            "n": float(n),
            "kl": float(np.log(n) - (n - 1) / n),
            "gold": 1.0 - sign * 0.1 * (place - 3) ** 2 + 0.001 * noise[6],
            "reward_model": sign * 0.3 * place + 0.001 * noise[7],
        }
        for place, n in enumerate((1, 2, 4, 8, 16, 32, 64))
    ]
    return _record(point, metrics=metrics, history=history, best_of_n=curve)


def _reward(point: Point, sign: float, noise: Sequence[float]) -> dict[str, float]:
    prompts = int(point.setting.split("=")[1].split()[0])
    pair = point.setting.endswith("pair")
    known = 0.65 + sign * 0.03 * np.log(prompts / 7000) - sign * 0.02 * pair + 0.002 * noise[0]
    return {
        "valid/accuracy": known,
        "valid/accuracy_heldout_labelers": known - 0.02 - (0.1 if sign == OPPOSITE else 0.0),
        "valid/accuracy_gold": known + 0.1,
        "agreement/heldout_labelers": 0.73 if sign != OPPOSITE else 0.4,
        "log_loss/valid": 0.62 + sign * 0.03 * pair + 0.001 * noise[1],
        "train/accuracy": 0.68 + sign * 0.05 * pair + 0.002 * noise[2],
    }


def synthetic(config: StudyConfig, sign: float, keep: Keep = lambda point: True) -> Results:
    points = points_of(config)
    return Results(config, points, {point: record_of(point, sign) for point in points if keep(point)})
