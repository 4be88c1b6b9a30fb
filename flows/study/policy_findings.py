"""What the sweeps over beta and gamma, and the single choices, say."""

import math
from collections.abc import Sequence

from flows.study.points import policy_setting
from flows.study.results import Chart, Results, Series, StudyFinding, series_of
from flows.study.rules import Claim, Judged, difference

VS_BASE, VS_SFT = "policy/benchmarks_vs_base", "policy/benchmarks_vs_sft"
GOLD, PROXY = "policy/score_gold", "policy/score_reward_model"
INTERVENTIONS = "brake/interventions"
WIN, KL, PERPLEXITY, ENDED = "policy/win_rate_gold", "policy/kl", "policy/perplexity_ratio", "policy/eos_rate"
COLUMNS = [
    # metric, factor, decimals, with its sign
    (VS_BASE, 100.0, 1, True),
    (VS_SFT, 100.0, 1, True),
    (PERPLEXITY, 1.0, 2, False),
    (GOLD, 1.0, 2, False),
    (PROXY, 1.0, 2, True),
    (WIN, 100.0, 1, False),
    (KL, 1.0, 2, False),
]
HEADINGS = ["vs base, points", "vs SFT, points", "perplexity / base", "gold score", "proxy score", "win %, gold", "KL"]


def _table(results: Results, settings: Sequence[tuple[str, str]]) -> list[list[str]]:
    return [
        [
            label,
            *(
                results.cell(results.metric(setting, name), scale, digits, signed)
                for name, scale, digits, signed in COLUMNS
            ),
        ]
        for label, setting in settings
    ]


def _series(
    results: Results, label: str, x: Sequence[float], settings: Sequence[str], name: str, scale: float = 1.0
) -> Series:
    return series_of(label, x, [results.metric(setting, name) for setting in settings], scale)


def alignment_tax(results: Results) -> StudyFinding:
    """Gamma sweep at the reference beta."""
    config, rules = results.config, results.config.rules
    gammas = config.grid.gammas
    settings = [policy_setting(config.reference.beta, gamma) for gamma in gammas]
    without, reference = settings[0], policy_setting(config.reference.beta, config.reference.gamma)
    log_ratio = {
        setting: {seed: math.log(value) for seed, value in results.metric(setting, PERPLEXITY).items()}
        for setting in settings
    }
    gamma = config.reference.gamma
    judged = results.judge(
        Claim(
            "Benchmarks at gamma = 0 against the base model",
            results.metric(without, VS_BASE),
            "below",
            0,
            100,
            "points",
        ),
        Claim(
            f"Benchmarks at gamma = {gamma:g} minus gamma = 0",
            difference(results.metric(reference, VS_BASE), results.metric(without, VS_BASE)),
            "above",
            0,
            100,
            "points",
        ),
        Claim(
            f"Benchmarks at gamma = {gamma:g} against the base model",
            results.metric(reference, VS_BASE),
            "above",
            -rules.benchmark_cost,
            100,
            "points",
        ),
        Claim(
            f"Pretraining loss at gamma = {gamma:g} minus gamma = 0",
            difference(log_ratio[reference], log_ratio[without]),
            "below",
            0,
            1,
            "nats a token",
            3,
        ),
        Claim(
            f"Gold score at gamma = {gamma:g} minus gamma = 0",
            difference(results.metric(reference, GOLD), results.metric(without, GOLD)),
            "above",
            -rules.gold_cost,
        ),
    )
    axis = "gamma"
    panels = [
        Chart(
            "Benchmarks",
            axis,
            "change, points",
            [
                _series(results, "against base", gammas, settings, VS_BASE, 100),
                _series(results, "against SFT", gammas, settings, VS_SFT, 100),
            ],
            x_scale="symlog",
            level=("no change", 0.0),
        ),
        Chart(
            "Pretraining text",
            axis,
            "loss above base, nats a token",
            [series_of("", gammas, [log_ratio[setting] for setting in settings])],
            x_scale="symlog",
            level=("base", 0.0),
        ),
        Chart(
            "Reward",
            axis,
            "mean score",
            [
                _series(results, "gold labeler", gammas, settings, GOLD),
                _series(results, "reward model", gammas, settings, PROXY),
            ],
            x_scale="symlog",
        ),
    ]
    return StudyFinding(
        key="alignment_tax",
        title="Alignment tax over gamma",
        question="Does PPO cost abilities that the base model had, and do pretraining gradients buy them back?",
        paper="gamma = 0 regresses on public benchmarks; a large enough gamma recovers them at little cost in reward "
        "(InstructGPT, section 4.2 and appendix E.6).",
        judged=judged,
        headings=["gamma", *HEADINGS],
        rows=_table(results, [(f"{gamma:g}", setting) for gamma, setting in zip(gammas, settings, strict=True)]),
        panels=panels,
        missing=results.missing(settings),
        notes=[
            f"beta = {config.reference.beta:g} throughout. The scale of gamma is that of these losses: 1 here, 27.8 in "
            "the paper."
        ],
    )


def beta_without_ptx(results: Results) -> StudyFinding:
    """Beta sweep at gamma = 0, against the reference policy."""
    config = results.config
    betas = config.grid.betas_without_ptx
    settings = [policy_setting(beta, 0.0) for beta in betas]
    reference = policy_setting(config.reference.beta, config.reference.gamma)
    plain = policy_setting(config.reference.beta, 0.0)
    sweep = [results.metric(setting, VS_BASE) for setting in settings]
    seeds = set.intersection(*(set(values) for values in sweep)) if sweep else set()
    best = {seed: max(values[seed] for values in sweep) for seed in sorted(seeds)}
    largest = f"beta = {betas[-1]:g}"
    judged = results.judge(
        Claim(
            "Benchmarks of each seed's best beta at gamma = 0 minus the policy with pretraining gradients",
            difference(best, results.metric(reference, VS_BASE)),
            "below",
            0,
            100,
            "points",
        ),
        Claim(
            f"Proxy score at {largest} minus beta = {config.reference.beta:g}, both at gamma = 0",
            difference(results.metric(settings[-1], PROXY), results.metric(plain, PROXY)),
            "below",
            0,
        ),
    )
    level = results.metric(reference, VS_BASE)
    return StudyFinding(
        key="beta_without_ptx",
        title="A higher price of KL instead of pretraining gradients",
        question="With gamma = 0, can a larger beta buy the benchmarks back?",
        paper="No: even 100 times the default beta does not recover DROP and SQuAD, and the reward falls a lot "
        "(InstructGPT, appendix E.6; there the KL is measured to the pretrained model, here to PPO-init).",
        judged=judged,
        headings=["beta", *HEADINGS],
        rows=_table(
            results,
            [
                *((f"{beta:g}", setting) for beta, setting in zip(betas, settings, strict=True)),
                (f"{config.reference.beta:g}, gamma = {config.reference.gamma:g}", reference),
            ],
        ),
        panels=[
            Chart(
                "Benchmarks",
                "beta (gamma = 0)",
                "change against base, points",
                [_series(results, "", betas, settings, VS_BASE, 100)],
                x_scale="symlog",
                level=("with ptx", 100 * sum(level.values()) / len(level)) if level else None,
            ),
            Chart(
                "Reward",
                "beta (gamma = 0)",
                "mean score",
                [
                    _series(results, "gold labeler", betas, settings, GOLD),
                    _series(results, "reward model", betas, settings, PROXY),
                ],
                x_scale="symlog",
            ),
        ],
        missing=results.missing([*settings, reference]),
        notes=[
            "The best beta is chosen for each seed after the fact, which favours beta; the claim must hold in spite of it."
        ],
    )


def beta_with_ptx(results: Results) -> StudyFinding:
    """Beta sweep at the reference gamma."""
    config = results.config
    betas = config.grid.betas_with_ptx
    settings = [policy_setting(beta, config.reference.gamma) for beta in betas]
    middle = results.metric(policy_setting(config.reference.beta, config.reference.gamma), GOLD)
    name = f"beta = {config.reference.beta:g}"
    judged = results.judge(
        *(
            Claim(
                f"Gold score at beta = {betas[end]:g} minus {name}",
                difference(results.metric(settings[end], GOLD), middle),
                "below",
                0,
            )
            for end in (0, -1)
        )
    )
    axis = f"beta (gamma = {config.reference.gamma:g})"
    return StudyFinding(
        key="beta_with_ptx",
        title="The price of KL, with pretraining gradients",
        question="Is there a best beta between none and a very large one?",
        paper="Yes: 0 and 2 are poor, 0.01 to 0.02 best (InstructGPT, appendix E.7).",
        judged=judged,
        headings=["beta", *HEADINGS],
        rows=_table(results, [(f"{beta:g}", setting) for beta, setting in zip(betas, settings, strict=True)]),
        panels=[
            Chart(
                "Reward",
                axis,
                "mean score",
                [
                    _series(results, "gold labeler", betas, settings, GOLD),
                    _series(results, "reward model", betas, settings, PROXY),
                ],
                x_scale="symlog",
            ),
            Chart(
                "Preference",
                axis,
                "win rate against SFT by gold, %",
                [_series(results, "", betas, settings, WIN, 100)],
                x_scale="symlog",
                level=("SFT", 50.0),
            ),
        ],
        missing=results.missing(settings),
        notes=["Judged by gold, which stands for the people of the paper; the proxy is what PPO optimises."],
    )


ABLATIONS = {
    # name -> what it says, metric, scale, unit, what the choice is expected to do to it
    "no EMA": ("Averaged weights (EMA)", GOLD, 1.0, "gold score"),
    "no pretraining mix": ("10 % pretraining rows in PPO-init", VS_BASE, 100.0, "benchmark points against base"),
    "no missing-EOS rule": ("A fixed score for answers without EOS", ENDED, 100.0, "% of answers that end"),
}


def _nothing(item: Judged) -> bool:
    """Whether every seed shows exactly no difference."""
    interval = item.interval
    return item.judgement == "contradicted" and interval is not None and interval.low == interval.high == 0


def single_choices(results: Results) -> StudyFinding:
    """One line for each choice that is switched off alone."""
    config = results.config
    reference = policy_setting(config.reference.beta, config.reference.gamma)
    names = list(config.grid.ablations)
    claims, rows = [], []
    for name in names:
        title, metric, scale, unit = ABLATIONS.get(name, (f"Without: {name}", GOLD, 1.0, "gold score"))
        gain = difference(results.metric(reference, metric), results.metric(name, metric))
        claims.append(Claim(f"{title}: reference minus '{name}'", gain, "above", 0, scale, unit))
        rows.append(
            [
                title,
                unit,
                results.cell(results.metric(reference, metric), scale),
                results.cell(results.metric(name, metric), scale),
                results.cell(gain, scale),
            ]
        )
    # Rates at their ceiling differ by exactly nothing in every seed, which neither helps nor hurts.
    judged = [item._replace(judgement="open") if _nothing(item) else item for item in results.judge(*claims)]
    words = {"holds": "helps", "contradicted": "hurts", "open": "no difference seen", "not measured": "not measured"}
    for row, item in zip(rows, judged, strict=True):
        row.append(words[item.judgement])
    return StudyFinding(
        key="single_choices",
        title="EMA, the 10 % mix, the missing-EOS rule",
        question="Does each of these choices help, all else equal?",
        paper="All three are used; the paper shows no ablation of EMA or of the rule, and finds the mix helpful (appendix E.8).",
        judged=judged,
        headings=["choice", "measured by", "with", "without", "difference", ""],
        rows=rows,
        panels=[],
        missing=results.missing([reference, *names]),
        notes=["The verdict above asks that all of them help; the table has one for each."],
    )
