"""`python -m tests.benchmarks.signals [.plumbline]`: what each sign that a brake could read would have kept of recorded runs.

Reads the points of `python -m flows.study scale=brake`. A rule looks at a run as it was recorded without a brake, stops it at the
first iteration where it holds, and ships the window that it likes best; gold, which no rule reads, says what that was worth. All
figures are means over ``sentinel.window`` iterations of training, not of test prompts.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flows.config import load
from flows.study.points import UNBRAKED, policy_setting
from tasks.ppo.brake import noise, worths
from tasks.ppo.sentinel import ENTROPY, KL, LENGTH, History, held_out_score, window_means

GOLD = held_out_score("gold")
WINDOW = 5
SANDBOX = load([]).ppo


class Shipped(NamedTuple):
    """What a rule makes of a run."""

    window: int
    """Whose weights it ships; the last where it never holds."""
    held: bool


Rule = Callable[[History], Shipped]


def never(history: History) -> Shipped:
    """The last window."""
    return Shipped(len(window_means(history, GOLD, WINDOW)) - 1, False)


def by_worth(price: float, fall: float) -> Rule:
    """``ppo.brake``'s: the independent judge's score minus a price a nat is ``fall`` below its best; the latest as good ships."""

    def rule(history: History) -> Shipped:
        found, kept = worths(history, WINDOW, price), 0
        for now in range(len(found)):
            best = max(found[: now + 1])
            if found[now] >= best - noise(history[: now + WINDOW], SANDBOX):
                kept = now
            if now >= WINDOW and best - found[now] >= fall:
                return Shipped(kept, True)
        return never(history)

    return rule


def by_limit(metric: str, holds: Callable[[float, float], bool]) -> Rule:
    """A window's mean, and the first window's, say that it has gone too far; that window is shipped."""

    def rule(history: History) -> Shipped:
        found = window_means(history, metric, WINDOW)
        return next((Shipped(at, True) for at, mean in enumerate(found) if holds(mean, found[0])), never(history))

    return rule


RULES: dict[str, Rule] = {
    "none": never,
    "independent judge alone, fall 0.2": by_worth(0.0, 0.2),
    "independent judge, 0.1 a nat, fall 0.2": by_worth(0.1, 0.2),
    "independent judge, 0.2 a nat, fall 0.2": by_worth(0.2, 0.2),
    "independent judge, 0.3 a nat, fall 0.7": by_worth(0.3, 0.7),
    "independent judge, 0.35 a nat, fall 0.7": by_worth(0.35, 0.7),
    "independent judge, 0.4 a nat, fall 0.7": by_worth(0.4, 0.7),
    "independent judge, 0.45 a nat, fall 1": by_worth(0.45, 1.0),
    "independent judge, 0.6 a nat, fall 0.7": by_worth(0.6, 0.7),
    "KL above 0.5 nats": by_limit(KL, lambda now, _: now > 0.5),
    "KL above 1 nat": by_limit(KL, lambda now, _: now > 1),
    "KL above 2 nats": by_limit(KL, lambda now, _: now > 2),
    "entropy below 80 % of the start's": by_limit(ENTROPY, lambda now, first: now < 0.8 * first),
    "entropy below 60 %": by_limit(ENTROPY, lambda now, first: now < 0.6 * first),
    "length 10 % off the start's": by_limit(LENGTH, lambda now, first: max(now / first, first / now) > 1.1),
}


def worth_of(rule: Rule, far: Sequence[History], healthy: Sequence[History]) -> list[str]:
    """Cells: share of the best gold kept, mean, lowest; healthy runs in which it held; change of their gold, mean, lowest."""
    kept, changes, held = [], [], 0
    for history in far:
        gold = window_means(history, GOLD, WINDOW)
        kept.append(gold[rule(history).window] / max(gold))
    for history in healthy:
        gold, shipped = window_means(history, GOLD, WINDOW), rule(history)
        changes.append(gold[shipped.window] / gold[-1] - 1)
        held += shipped.held
    numbers = [f"{100 * value:.0f}" for value in (sum(kept) / len(kept), min(kept))]
    changed = [f"{100 * value:+.1f}" for value in (sum(changes) / len(changes), min(changes))]
    return [*numbers, f"{held} of {len(healthy)}", *changed]


def table(histories: Mapping[str, Sequence[History]]) -> str:
    """In Markdown, a row for each rule.

    Args:
        histories: "far" and "healthy" -> recorded runs.
    """
    head = ["a rule that reads", "share of the best gold, %", "lowest", "healthy runs held", "their gold, %", "lowest"]
    rows = [head, ["---"] * len(head)]
    rows += [[name, *worth_of(rule, histories["far"], histories["healthy"])] for name, rule in RULES.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def recorded(home: Path) -> dict[str, list[History]]:
    """The study's runs that no brake touched."""
    points = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted((home / "study" / "points").glob("*.json"))
    ]
    settings = {"far": UNBRAKED, "healthy": policy_setting(0.3, 1.0)}
    found = {
        name: [each["history"] for each in points if each["point"]["setting"] == setting]
        for name, setting in settings.items()
    }
    if not all(found.values()):
        raise SystemExit(f"{home}: found no points of both kinds; run `python -m flows.study scale=brake` first")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.signals")
    parser.add_argument("home", nargs="?", type=Path, default=Path(".plumbline"))
    print(table(recorded(parser.parse_args().home)))
