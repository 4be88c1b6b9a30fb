"""What reward models and a long SFT say."""

from collections.abc import Mapping, Sequence

from flows.study.points import reward_setting, sft_setting
from flows.study.results import Chart, Results, Series, StudyFinding, series_of
from flows.study.rules import Claim, difference, lowest_by_others

KNOWN, HELD_OUT, BY_GOLD = "valid/accuracy", "valid/accuracy_heldout_labelers", "valid/accuracy_gold"
LOG_LOSS, TRAINED = "log_loss/valid", "train/accuracy"
AGREEMENT = "agreement/heldout_labelers"


def _along(results: Results, label: str, numbers: Sequence[int], element: str, metric: str) -> Series:
    return series_of(label, numbers, [results.metric(reward_setting(n, element), metric) for n in numbers], 100)


def _overfit(results: Results, setting: str) -> dict[int, float]:
    """How much better a reward model orders the pairs it trained on last than those of held-out prompts; shares."""
    return difference(results.metric(setting, TRAINED), results.metric(setting, KNOWN))


def batch_element(results: Results) -> StudyFinding:
    """All pairs of a prompt in one batch element, against shuffled pairs, at equal data."""
    config = results.config
    numbers = config.grid.pair_prompts
    claims, rows = [], []
    for count in numbers:
        whole, pairs = reward_setting(count, "prompt"), reward_setting(count, "pair")
        for element, setting in (("prompt", whole), ("pair", pairs)):
            rows.append(
                [
                    f"{count}, {'all pairs of a prompt' if element == 'prompt' else 'shuffled pairs'}",
                    *(results.cell(results.metric(setting, name), 100, signed=False) for name in (TRAINED, KNOWN)),
                    results.cell(_overfit(results, setting), 100),
                    *(results.cell(results.metric(setting, name), 100, signed=False) for name in (HELD_OUT, BY_GOLD)),
                    results.cell(results.metric(setting, LOG_LOSS), digits=3, signed=False),
                ]
            )
    if numbers:
        count = numbers[-1]
        whole, pairs = reward_setting(count, "prompt"), reward_setting(count, "pair")
        claims = [
            Claim(
                f"Gap between trained and held-out accuracy at {count} prompts, shuffled pairs minus whole prompts",
                difference(_overfit(results, pairs), _overfit(results, whole)),
                "above",
                0,
                100,
                "points",
            ),
            Claim(
                "Loss on held-out prompts, shuffled pairs minus whole prompts",
                difference(results.metric(pairs, LOG_LOSS), results.metric(whole, LOG_LOSS)),
                "above",
                0,
                1,
                "nats a pair",
                3,
            ),
        ]
    settings = [reward_setting(n, element) for n in numbers for element in ("prompt", "pair")]
    axis = "prompts"
    return StudyFinding(
        key="batch_element",
        title="All pairs of a prompt together, or shuffled pairs",
        question="At equal data and one epoch, do shuffled pairs overfit more?",
        paper="Yes: each completion gets K - 1 separate gradient steps, and a single pass overfits (InstructGPT, section 3.5).",
        judged=results.judge(*claims),
        headings=[
            "prompts, batch element",
            "trained pairs, %",
            "held-out pairs, %",
            "gap, points",
            "held-out labelers, %",
            "gold, %",
            "held-out loss",
        ],
        rows=rows,
        panels=[
            Chart(
                "Held-out prompts",
                axis,
                "pairs in the labelers' order, %",
                [
                    _along(results, "all pairs of a prompt", numbers, "prompt", KNOWN),
                    _along(results, "shuffled pairs", numbers, "pair", KNOWN),
                ],
                x_scale="log",
            ),
            Chart(
                "Overfitting",
                axis,
                "trained minus held-out, points",
                [
                    series_of(label, numbers, [_overfit(results, reward_setting(n, element)) for n in numbers], 100)
                    for label, element in (("all pairs of a prompt", "prompt"), ("shuffled pairs", "pair"))
                ],
                x_scale="log",
            ),
        ],
        missing=results.missing(settings),
        notes=["Trained pairs: mean over the last fifth of the steps, each taken before the step that learns from it."],
    )


def data_and_labelers(results: Results) -> StudyFinding:
    """Reward-model accuracy over the number of comparisons, and on labelers whose rankings were never trained on."""
    config, rules = results.config, results.config.rules
    numbers = config.grid.comparison_prompts
    settings = [reward_setting(n, "prompt") for n in numbers]
    most = settings[-1]
    agreement = results.metric(most, AGREEMENT)
    claims = [
        Claim(
            f"Accuracy on held-out labelers minus known ones, {numbers[-1]} prompts",
            difference(results.metric(most, HELD_OUT), results.metric(most, KNOWN)),
            "above",
            -rules.accuracy_cost,
            100,
            "points",
        ),
        Claim(
            "Agreement between two held-out labelers minus the reward model's accuracy on them",
            difference(agreement, results.metric(most, HELD_OUT)),
            "above",
            0,
            100,
            "points",
        ),
    ]
    if len(numbers) > 1:
        claims.insert(
            0,
            Claim(
                f"Accuracy on held-out prompts, {numbers[-1]} minus {numbers[0]} prompts",
                difference(results.metric(most, KNOWN), results.metric(settings[0], KNOWN)),
                "above",
                0,
                100,
                "points",
            ),
        )
    columns = (KNOWN, HELD_OUT, BY_GOLD, AGREEMENT)
    return StudyFinding(
        key="data_and_labelers",
        title="More comparisons, and labelers never trained on",
        question="Does the reward model get better with data, and does it carry over to other labelers?",
        paper="Accuracy rises with data (Gao et al. 2022: near chance below about 2000 comparisons); on held-out labelers 69.6 % "
        "against 72.4 % on known ones, below the 73 to 77 % on which labelers agree (InstructGPT, sections 3.4 and 4.1).",
        judged=results.judge(*claims),
        headings=[
            "prompts",
            "known labelers, %",
            "held-out labelers, %",
            "gold, %",
            "two held-out labelers agree, %",
        ],
        rows=[
            [str(n), *(results.cell(results.metric(setting, name), 100, signed=False) for name in columns)]
            for n, setting in zip(numbers, settings, strict=True)
        ],
        panels=[
            Chart(
                "Reward-model accuracy",
                "prompts",
                "pairs in the judge's order, %",
                [
                    _along(results, "known labelers", numbers, "prompt", KNOWN),
                    _along(results, "held-out labelers", numbers, "prompt", HELD_OUT),
                    _along(results, "gold", numbers, "prompt", BY_GOLD),
                ],
                x_scale="log",
                level=("two held-out labelers agree", 100 * sum(agreement.values()) / len(agreement))
                if agreement
                else None,
            ),
        ],
        missing=results.missing(settings),
        notes=[
            "Held-out prompts throughout. The number counts sampled prompts; one whose samples are all the same is dropped."
        ],
    )


def _epoch_curves(metrics: Mapping[int, Mapping[str, float]], prefix: str) -> dict[int, list[float]]:
    curves = {}
    for seed, values in metrics.items():
        found = {int(name.removeprefix(prefix)): value for name, value in values.items() if name.startswith(prefix)}
        if found:
            curves[seed] = [found[epoch] for epoch in sorted(found)]
    return curves


def sft_epochs(results: Results) -> StudyFinding:
    """Validation loss and reward-model score of every epoch of a long SFT."""
    setting = sft_setting(results.config.grid.sft_epochs)
    metrics = {seed: record.metrics for seed, record in results.records(setting).items()}
    losses, rewards = (_epoch_curves(metrics, prefix) for prefix in ("valid/loss_epoch_", "valid/reward_epoch_"))
    places = lowest_by_others(losses)
    judged = results.judge(
        Claim(
            "Validation loss at the last epoch minus where it is lowest",
            {s: losses[s][-1] - losses[s][place] for s, place in places.items()},
            "above",
            0,
            1,
            "nats a token",
            3,
        ),
        Claim(
            "Reward-model score at the last epoch minus there",
            {s: rewards[s][-1] - rewards[s][place] for s, place in places.items() if s in rewards},
            "above",
            0,
        ),
    )
    count = max((len(curve) for curve in losses.values()), default=0)
    epochs = list(range(1, count + 1))
    by_epoch = [
        ({s: curve[e - 1] for s, curve in losses.items()}, {s: curve[e - 1] for s, curve in rewards.items()})
        for e in epochs
    ]
    axis = "epoch"
    return StudyFinding(
        key="sft_epochs",
        title="How long to fine-tune",
        question="Does the validation loss overfit while the reward model's score keeps rising?",
        paper="Yes: the loss rises after one epoch, and 16 epochs help the reward score and people's preferences "
        "(InstructGPT, section 3.5 and appendix C.1).",
        judged=judged,
        headings=["epoch", "validation loss", "reward-model score"],
        rows=[
            [str(e), results.cell(loss, digits=3, signed=False), results.cell(reward)]
            for e, (loss, reward) in zip(epochs, by_epoch, strict=True)
        ],
        panels=[
            Chart(
                "Validation loss",
                axis,
                "nats a token",
                [series_of("", epochs, [loss for loss, _ in by_epoch])],
            ),
            Chart(
                "Reward-model score of samples",
                axis,
                "mean score",
                [series_of("", epochs, [reward for _, reward in by_epoch])],
            ),
        ],
        missing=results.missing([setting]),
        notes=[
            "Where the loss is lowest is taken from the other seeds, because a curve's own minimum lies below its end by "
            "construction. One cosine spans all epochs."
        ],
    )
