"""The comparison in words. Every sentence follows from intervals, never from a point estimate alone."""

from collections.abc import Mapping, Sequence

from tasks.results.comparison import PolicyRow, title_of
from tasks.results.judges import JUDGES
from tasks.results.policies import POLICIES, START, names_of
from tasks.results.sheet import BASELINE, REWARD_MODEL
from tasks.results.win_rate import Interval

ENOUGH = 100
"""Prompts below which a win rate is not worth a conclusion: its interval is 20 points wide."""
NO_KL = 0.02
"""Nats to PPO's start below which PPO counts as not moved: by Pinsker's inequality fewer than one response in ten differs."""


def percent(value: float) -> str:
    """0.6412 -> 64.1 %."""
    return f"{100 * value:.1f} %"


def percent_interval(interval: Interval) -> str:
    """64.1 % [60.1, 68.0]."""
    return f"{percent(interval.estimate)} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def points(interval: Interval) -> str:
    """A change of a share, in signed percentage points: -1.5 [-2.6, -0.4]."""
    return f"{_signed(interval.estimate)} [{_signed(interval.low)}, {_signed(interval.high)}]"


def _signed(share: float) -> str:
    return f"{100 * share + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")


def leading_policy(rows: Sequence[PolicyRow]) -> str:
    """The policy the verdict is about: PPO-ptx if measured, else PPO, else the last from elsewhere, else SFT."""
    measured = [row.policy for row in rows]
    elsewhere = [policy for policy in reversed(measured) if policy not in POLICIES]
    return next((policy for policy in names_of("own") if policy in measured), (*elsewhere, BASELINE)[0])


def deciding_judge(rows: Sequence[PolicyRow], judges: Sequence[str]) -> str:
    """The most trusted judge that ruled on every row; the reward model always did."""
    return next(judge for judge in judges if all(judge in row.rulings for row in rows))


def verdict(rows: Sequence[PolicyRow], judges: Sequence[str], selected_by: Mapping[str, str]) -> str:
    """Whether the leading policy beats SFT, at both decodings, and at what tax.

    What takes the figure's meaning away comes first: too few prompts, a base model that beats SFT, a PPO that did not move.
    """
    by_key = {row.key: row for row in rows}
    policy, judge = leading_policy(rows), deciding_judge(rows, judges)
    title = title_of(policy)
    if policy == "sft":
        return "Only SFT was measured against itself; train a policy to compare it with."
    sampled, greedy = by_key[policy].win[judge].bootstrap, by_key[f"{policy}_greedy"].win[judge].bootstrap
    before = [_too_few(by_key, judge), _base_beats_sft(by_key, judge), _not_moved(by_key, policy, judge)]
    text = (
        f"{title} {_standing(sampled)} SFT when both are sampled ({percent_interval(sampled)}) and "
        f"{_standing(greedy)} it when both are greedy ({percent_interval(greedy)}), by the {JUDGES[judge].title}"
    )
    change = by_key[policy].change_vs_base
    if change is not None:
        text += f"; the benchmark mean moves by {points(change)} points against the base model"
    chosen = [f"{title}'s weights were chosen by this judge, so its figures are too good."] * (
        selected_by.get(policy) == judge
    )
    return " ".join([*filter(None, before), f"{text}.", *chosen])


def _too_few(by_key: dict[str, PolicyRow], judge: str) -> str:
    prompts = by_key[BASELINE].win[judge].prompts
    return "" if prompts >= ENOUGH else f"Too few prompts ({prompts}, fewer than {ENOUGH}) to conclude anything."


def _base_beats_sft(by_key: dict[str, PolicyRow], judge: str) -> str:
    found = [
        by_key[key] for key in ("base", "base_greedy") if key in by_key and by_key[key].win[judge].bootstrap.low > 0.5
    ]
    if not found:
        return ""
    figures = " and ".join(f"{percent_interval(row.win[judge].bootstrap)} against {row.against}" for row in found)
    return f"The base model, before any tuning, beats SFT ({figures}), so beating SFT shows little."


def _not_moved(by_key: dict[str, PolicyRow], policy: str, judge: str) -> str:
    """PPO is credited only with what it changed: the KL to its start, and the win rate against it."""
    row, start = by_key[policy], by_key.get(START)
    if policy not in names_of("own") or start is None:
        return ""
    by = judge if judge in row.against_start else next(iter(row.against_start))
    change = row.against_start[by].bootstrap
    greedy = by_key[f"{policy}_greedy"].against_start[by].bootstrap
    still = row.kl is not None and row.kl.estimate < NO_KL
    if not still and (change.low > 0.5 or change.high < 0.5):
        return ""
    why = "" if row.kl is None else f"KL {row.kl.estimate:.2f} nats".replace("-", "\N{MINUS SIGN}") + "; "
    return (
        f"PPO has not moved: against PPO-init, where it starts, it wins {percent_interval(change)} sampled and "
        f"{percent_interval(greedy)} greedy ({why}by the {JUDGES[by].title}), and PPO-init itself stands at "
        f"{percent_interval(start.win[judge].bootstrap)} sampled and "
        f"{percent_interval(by_key[f'{START}_greedy'].win[judge].bootstrap)} greedy against SFT. What follows is not PPO's doing."
    )


def notes(rows: Sequence[PolicyRow], judges: Sequence[str], selected_by: Mapping[str, str]) -> list[str]:
    """The caveats that these numbers call for."""
    by_key = {row.key: row for row in rows}
    policy, judge = leading_policy(rows), deciding_judge(rows, judges)
    chosen = [_selected(name, who) for name, who in selected_by.items()]
    found = [_who_judges(judge), *chosen, _sharpening(by_key, policy, judge), _unseen(by_key, policy, judge)]
    if policy != "sft":
        found += [
            _over_optimised(by_key, policy, judge),
            _blame(by_key, policy, judge),
            _length(by_key, policy, judge),
            *[_disagreement(by_key, policy, judge, other) for other in judges],
            *[_order(by_key[policy], other) for other in judges],
            _toxicity(by_key, policy),
        ]
    return [note for note in found if note]


def noise_floor(rows: list[PolicyRow], judges: list[str]) -> list[str]:
    """How far two measurements of the base model lie apart, where it was measured twice."""
    by_key = {row.key: row for row in rows}
    if "base_again" not in by_key:
        return []
    judge = deciding_judge(rows, judges)
    one, two = (by_key[key].win[judge].rate for key in ("base", "base_again"))
    text = (
        f"Noise floor: measured again with another seed, the base model wins {100 * two:.1f} % against SFT instead of "
        f"{100 * one:.1f} %, by the {JUDGES[judge].title}"
    )
    if judge in by_key["base"].scores:
        change = by_key["base_again"].scores[judge] - by_key["base"].scores[judge]
        text += f", and its mean score moves by {change:+.2f}".replace("-", "\N{MINUS SIGN}")
    return [f"{text}. A difference of this size between two rows is chance."]


def _standing(rate: Interval) -> str:
    if rate.low > 0.5:
        return "beats"
    return "loses to" if rate.high < 0.5 else "is level with"


def _selected(policy: str, judge: str) -> str:
    return (
        f"The {JUDGES[judge].title} chose {title_of(policy)}'s weights: its win rates and scores of {title_of(policy)} are too "
        "good, and only the other judges are independent of that choice."
    )


def _unseen(by_key: dict[str, PolicyRow], policy: str, judge: str) -> str:
    """The figure on requests that no training prompt makes, where there are others."""
    ruling = by_key[policy].rulings[judge]
    unseen, prompts = ruling.win_unseen, ruling.win.prompts
    if unseen is not None and unseen.prompts == prompts:
        return ""
    repeats = prompts - (unseen.prompts if unseen else 0)
    text = f"{repeats} of {prompts} test prompts make a request of a training prompt again, behind another opening"
    if unseen is None:
        return f"{text}: no request is new."
    return f"{text}; on the {unseen.prompts} new requests {title_of(policy)} stands at {percent_interval(unseen.bootstrap)}."


def _who_judges(judge: str) -> str:
    if not JUDGES[judge].optimised:
        return ""
    return (
        "The only judge is the reward model that PPO and best-of-n optimised: these win rates show that the "
        "optimisation worked, not that the responses are better."
    )


def _sharpening(by_key: dict[str, PolicyRow], policy: str, judge: str) -> str:
    control = by_key["sft_greedy"].win[judge].bootstrap
    text = (
        "Sharpening control: SFT decoded greedily, with no RL at all, scores "
        f"{percent_interval(control)} against SFT sampled."
    )
    if policy == "sft":
        return text
    sampled, greedy = by_key[policy].win[judge].bootstrap, by_key[f"{policy}_greedy"].win[judge].bootstrap
    if sampled.low > 0.5 and greedy.low <= 0.5:
        text += f" {title_of(policy)} shows no gain beyond what this decoding gives for free."
    return text


def _over_optimised(by_key: dict[str, PolicyRow], policy: str, judge: str) -> str:
    win = by_key[policy].win
    if judge == REWARD_MODEL or REWARD_MODEL not in win:  # an evaluation on its own may have no reward model
        return ""
    if win[REWARD_MODEL].bootstrap.low > 0.5 and win[judge].bootstrap.high < 0.5:
        return f"Over-optimised: the reward model prefers {title_of(policy)} to SFT while the {JUDGES[judge].title} prefers SFT."
    return ""


def _blame(by_key: dict[str, PolicyRow], policy: str, judge: str) -> str:
    """Best-of-n optimises the same reward model without any training, so it tells which of the two failed.

    "Good" is an interval above one half. What the optimised reward model thinks of its own optimisers says nothing about
    itself, so without another judge nobody is blamed.
    """
    picks = [row for row in by_key.values() if row.decoding.startswith("best_of_")]
    # Of a model from elsewhere it is not known that PPO trained it, nor against which reward model.
    if not picks or judge == REWARD_MODEL or policy not in names_of("own"):
        return ""
    best = max(picks, key=lambda row: row.win[judge].rate)
    pick, trained = best.win[judge].bootstrap, by_key[policy].win[judge].bootstrap
    figures = f"({best.title}: {percent_interval(pick)}; {title_of(policy)}: {percent_interval(trained)})"
    if trained.low > 0.5:
        if pick.low > 0.5:
            return f"Stage blame: none. Best-of-n with the same reward model and {title_of(policy)} both beat SFT {figures}."
        return (
            f"Stage blame: none for PPO. {title_of(policy)} beats SFT although best-of-n with the same reward model is not "
            f"shown to {figures}; a larger n would say more about the reward model."
        )
    if pick.low <= 0.5:
        return (
            f"Stage blame: the reward model. Neither best-of-n, which needs no training, nor {title_of(policy)} is shown to "
            f"beat SFT {figures}: look at the comparisons and the reward model before PPO."
        )
    proxy = by_key[policy].win[REWARD_MODEL].bootstrap
    why = (
        f"the reward model itself prefers it ({percent_interval(proxy)}), so it went too far or the wrong way: look at "
        "beta, episodes and the over-optimisation curve"
        if proxy.low > 0.5
        else f"not even the reward model prefers it ({percent_interval(proxy)}), so it did not learn: look at learning "
        "rates, episodes and the value model"
    )
    return (
        f"Stage blame: PPO. Best-of-n with the same reward model beats SFT and {title_of(policy)} is not shown to "
        f"{figures}; {why}."
    )


def _length(by_key: dict[str, PolicyRow], policy: str, judge: str) -> str:
    """Says so when a win or a loss goes away once length is taken out."""
    ruling = by_key[policy].rulings[judge]
    raw, controlled = ruling.win.bootstrap, ruling.length_controlled
    if controlled is None or _standing(raw) == _standing(controlled):
        return ""
    return (
        f"Length matters: at equal length the {JUDGES[judge].title} would prefer {title_of(policy)} to SFT in "
        f"{percent_interval(controlled)} of prompts, against {percent_interval(raw)} as the responses are."
    )


def _disagreement(by_key: dict[str, PolicyRow], policy: str, judge: str, other: str) -> str:
    """Another judge that neither decides nor was optimised, and comes to the opposite conclusion."""
    if other == judge or JUDGES[other].optimised or other not in by_key[policy].rulings:
        return ""
    mine, theirs = by_key[policy].win[judge].bootstrap, by_key[policy].win[other].bootstrap
    if not (mine.low > 0.5 > theirs.high or mine.high < 0.5 < theirs.low):
        return ""
    return (
        f"Judges disagree: the {JUDGES[other].title} gives {title_of(policy)} {percent_interval(theirs)} against SFT."
    )


def _order(row: PolicyRow, judge: str) -> str:
    orders = row.rulings[judge].orders if judge in row.rulings else None
    if orders is None:
        return ""
    parts = [
        f"{orders.inconsistent} of {orders.pairs} pairs changed their winner with the order",
        f"position bias {bias(orders.position_bias)}",
        f"{orders.tied_verdicts} of {orders.verdicts} single verdicts were ties",
        f"{orders.unjudged} pairs have no verdict and count for nobody",
    ]
    if orders.malformed:
        parts.append(f"{orders.malformed} answers held no verdict and were asked for again")
    return f"Order effects of the {JUDGES[judge].title} on {row.title}: {'; '.join(parts)}."


def bias(value: float) -> str:
    """-0.25 -> \N{MINUS SIGN}0.25, always with its sign."""
    return f"{value + 0.0:+.2f}".replace("-", "\N{MINUS SIGN}")


def _toxicity(by_key: dict[str, PolicyRow], policy: str) -> str:
    change = by_key[policy].toxicity_change_vs_sft
    if change is None or not change.excludes_zero:
        return ""
    direction = "rises" if change.low > 0 else "falls"
    return f"Toxicity on bait prompts {direction} by {points(change)} points against SFT."
