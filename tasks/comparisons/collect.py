"""The comparisons stage: sample and have ranked, or take rankings that were given."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tasks.comparisons.agreement import AgreeingShare, agreement_with_gold, labeler_agreement
from tasks.comparisons.between import agreement_between
from tasks.comparisons.config import ComparisonsConfig, SamplingConfig
from tasks.comparisons.label import GOLD_LABELER, label, label_by_everyone, label_by_gold, rankings_by_labeler
from tasks.comparisons.labelers.labeler import Labeler, Unranked
from tasks.comparisons.sample import Candidates, sample_candidates
from tasks.engine.config import RuntimeConfig
from tasks.engine.errors import DataError
from tasks.language.seeds import derived_seed, named_random
from tasks.language.types import PreTrainedModel, PreTrainedTokenizerBase
from tasks.records.labels import choose_shared
from tasks.records.rankings import require_signal
from tasks.records.records import Comparison, Prompt
from tasks.results.win_rate import Resampling
from tasks.sandbox.labelers import Panel, Simulated
from tasks.sandbox.world import World

Drawn = Mapping[str, Sequence[Candidates]]
"""train and valid -> the responses drawn for each of their prompts."""


class Collected(NamedTuple):
    """Comparison sets by name (see ``tasks.records.comparison_sets``) and what was measured while they were made."""

    sets: dict[str, list[Comparison]]
    metrics: dict[str, float]


def draw(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_prompts: Sequence[Prompt],
    valid_prompts: Sequence[Prompt],
    config: SamplingConfig,
    runtime: RuntimeConfig,
    seed: int,
) -> Drawn:
    """Draw K responses per prompt from the policy; more of training prompts, if some are selected from them."""
    train, valid = train_prompts[: config.max_prompts], valid_prompts[: config.max_valid_prompts]
    return {
        name: _sample(policy, tokenizer, prompts, knobs, runtime, derived_seed(seed, "comparisons", name))
        for name, prompts, knobs in (("train", train, config.drawn), ("valid", valid, config))
    }


def collect(
    drawn: Drawn,
    labelers: Mapping[str, Labeler],
    readable: Callable[[str], str],
    world: World | None,
    config: ComparisonsConfig,
    seed: int,
) -> Collected:
    """Have responses ranked: each prompt by one of the labelers, the shared ones by all of them.

    Args:
        drawn: the responses.
        labelers: by name, in the configured order.
        readable: a prompt's text without the model's layout.
        world: the embedded world, which ranks validation prompts in their true order, and by a panel of labelers who never
            rank training prompts; None for data of your own.
        config: shares, sizes.
        seed: of who ranks what, and of simulated labelers' noise.

    Raises:
        AwaitingLabels: people have not ranked enough yet.
        DataError: nothing is left to train on.
    """
    # 1. Rank; people first, because a run that waits for them asks nobody else.
    items = list(_items(drawn, readable, config.shared_share))
    assigned = _assign(items, list(labelers), seed)
    asked = {name: labelers[name].label(assigned[name]) for name in sorted(labelers, key=lambda name: name != "people")}
    sets: dict[str, list[Comparison]] = {"train": [], "valid": []}
    for item in items:
        for name in labelers:
            sets[item.split] += asked[name].get(item.item_id, ())
    if not sets["train"]:
        raise DataError(
            f"comparisons: found no ranking of {len(drawn['train'])} training prompts, expected some; all were skipped"
        )
    require_signal(sets["train"], "comparisons: training")
    # 2. What the embedded world knows.
    metrics: dict[str, float] = {}
    if world is not None:
        gold = label_by_gold(drawn["valid"], world)
        if "simulated" in labelers:
            panel = Panel.of(world, config.seed)
            sets["valid_heldout_labelers"] = label(
                drawn["valid"], panel.held_out, derived_seed(seed, "labels/valid_heldout_labelers")
            )
            common = drawn["valid"][: config.agreement_prompts]
            metrics |= measure_agreement(common, panel, gold, derived_seed(seed, "labels/agreement"))
        sets["valid_gold"] = gold
    # 3. How far kinds of labelers agree.
    if list(labelers) != ["simulated"]:
        kinds = {name: [one for rankings in asked[name].values() for one in rankings] for name in labelers}
        metrics |= agreement_between(
            kinds | ({GOLD_LABELER: sets["valid_gold"]} if world is not None else {}),
            Resampling(config.confidence, config.bootstrap_samples, seed),
        )
        unranked = sum(not asked[name].get(item.item_id) for name in labelers for item in assigned[name])
        metrics["comparisons/unranked"] = float(unranked)
    for one in labelers.values():
        metrics |= one.measured()
    return Collected(sets, set_sizes(sets) | metrics)


def _items(drawn: Drawn, readable: Callable[[str], str], shared_share: float) -> Iterator[Unranked]:
    ids = {split: [f"{split}/{one.prompt.prompt_id}" for one in candidates] for split, candidates in drawn.items()}
    shared = choose_shared([item for split in ids.values() for item in split], shared_share)
    for split, candidates in drawn.items():
        for item_id, one in zip(ids[split], candidates, strict=True):
            yield Unranked(item_id, readable(one.prompt.text), one, item_id in shared)


def _assign(items: Sequence[Unranked], names: Sequence[str], seed: int) -> dict[str, list[Unranked]]:
    """Shared items to everyone, the others to one labeler each: equally many, give or take one, in random order."""
    turns = [names[index % len(names)] for index in range(len(items))]
    named_random(seed, "labels/who").shuffle(turns)
    pairs = list(zip(items, turns, strict=True))
    return {name: [item for item, turn in pairs if item.shared or turn == name] for name in names}


def measure_agreement(
    candidates: Sequence[Candidates], panel: Panel, gold: Sequence[Comparison], seed: int
) -> dict[str, float]:
    """Agreement within each panel and with gold on candidates that everyone ranks."""
    if not candidates:
        return {}
    gold_ranks = rankings_by_labeler(gold)[GOLD_LABELER]
    metrics: dict[str, float] = {}
    panels: Mapping[str, Sequence[Simulated]] = {"training": panel.training, "heldout": panel.held_out}
    for name, labelers in panels.items():
        rankings = rankings_by_labeler(label_by_everyone(candidates, labelers, seed))
        metrics |= _named(f"agreement/{name}_labelers", labeler_agreement(rankings))
        metrics |= _named(f"agreement/{name}_with_gold", agreement_with_gold(rankings, gold_ranks))
    return metrics


def take_given(train: Sequence[Comparison], valid: Sequence[Comparison], config: ComparisonsConfig) -> Collected:
    """Use rankings from the data; a share of the labelers is never trained on.

    Their rankings of training prompts are left out; ``valid_heldout_labelers`` are the validation rankings of every
    labeler who is not trained on. A set without rankings is absent.

    Raises:
        DataError: when nothing is left to train on.
    """
    labelers = sorted({comparison.labeler_id for comparison in train})
    named_random(config.seed, "comparisons/labelers").shuffle(labelers)
    trained_on = set(labelers[int(len(labelers) * config.held_out_labeler_share) :])
    by_trained = [comparison for comparison in valid if comparison.labeler_id in trained_on]
    by_others = [comparison for comparison in valid if comparison.labeler_id not in trained_on]
    sets = {
        "train": [comparison for comparison in train if comparison.labeler_id in trained_on][: config.max_prompts],
        "valid": by_trained[: config.max_valid_prompts],
        "valid_heldout_labelers": by_others[: config.max_valid_prompts],
    }
    sets = {name: comparisons for name, comparisons in sets.items() if comparisons}
    if "train" not in sets:
        raise DataError(
            "comparisons: source is 'given' but the train split holds no comparisons, expected at least one; "
            "give comparisons, or use comparisons.source=sample_and_label with labelers"
        )
    agreement = labeler_agreement(rankings_by_labeler([*train, *valid]))
    return Collected(sets, set_sizes(sets) | _named("agreement/labelers", agreement))


def set_sizes(sets: Mapping[str, Sequence[Comparison]]) -> dict[str, float]:
    """Prompts per set, and completions per training prompt."""
    sizes = {f"comparisons/{name}": float(len(comparisons)) for name, comparisons in sets.items()}
    train = sets["train"]
    return sizes | {"comparisons/completions_per_prompt": sum(len(item.completions) for item in train) / len(train)}


def _sample(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    config: SamplingConfig,
    runtime: RuntimeConfig,
    seed: int,
) -> list[Candidates]:
    candidates = sample_candidates(policy, tokenizer, prompts, config, runtime, seed)
    if not candidates:
        raise DataError(
            f"comparisons: none of {len(prompts)} prompts got two different responses; "
            "give prompts, or raise temperature or completions_min"
        )
    return candidates


def _named(name: str, agreement: AgreeingShare) -> dict[str, float]:
    """Agreement as metrics; what could not be measured is left out."""
    values = {name: agreement.share, f"{name}_standard_error": agreement.standard_error}
    return {key: value for key, value in values.items() if not math.isnan(value)}
