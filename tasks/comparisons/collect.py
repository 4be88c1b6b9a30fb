"""The comparisons stage: sample and have ranked, or take rankings that were given."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.comparisons.agreement import Agreement, agreement_with_gold, labeler_agreement
from tasks.comparisons.config import ComparisonsConfig
from tasks.comparisons.label import GOLD_LABELER, label, label_by_everyone, label_by_gold, rankings_by_labeler
from tasks.comparisons.sample import Candidates, sample_candidates
from tasks.engine.config import RuntimeConfig
from tasks.engine.errors import DataError
from tasks.language.seeds import derived_seed, named_random
from tasks.records.records import Comparison, Prompt
from tasks.sandbox.labelers import Labeler, Panel
from tasks.sandbox.world import World


class Collected(NamedTuple):
    """Comparison sets by name (see ``tasks.records.comparison_sets``) and what was measured while they were made."""

    sets: dict[str, list[Comparison]]
    metrics: dict[str, float]


def sample_and_label(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_prompts: Sequence[Prompt],
    valid_prompts: Sequence[Prompt],
    world: World,
    panel: Panel,
    config: ComparisonsConfig,
    runtime: RuntimeConfig,
) -> Collected:
    """Draw K responses per prompt from the policy and have them ranked by the sandbox's labelers.

    Training prompts are ranked by the training panel alone. Validation prompts are ranked three times over: by the
    training panel, by the held-out panel, and by gold.
    """
    # 1. Sample.
    drawn = {
        name: _sample(policy, tokenizer, prompts, config, runtime, derived_seed(config.seed, "comparisons", name))
        for name, prompts in (
            ("train", train_prompts[: config.max_prompts]),
            ("valid", valid_prompts[: config.max_valid_prompts]),
        )
    }
    # 2. Rank.
    sets = {
        "train": label(drawn["train"], panel.training, derived_seed(config.seed, "labels/train")),
        "valid": label(drawn["valid"], panel.training, derived_seed(config.seed, "labels/valid")),
        "valid_heldout_labelers": label(
            drawn["valid"], panel.held_out, derived_seed(config.seed, "labels/valid_heldout_labelers")
        ),
        "valid_gold": label_by_gold(drawn["valid"], world),
    }
    # 3. Measure how far labelers agree with each other and with gold.
    shared = drawn["valid"][: config.agreement_prompts]
    seed = derived_seed(config.seed, "labels/agreement")
    return Collected(sets, set_sizes(sets) | measure_agreement(shared, panel, sets["valid_gold"], seed))


def measure_agreement(
    candidates: Sequence[Candidates], panel: Panel, gold: Sequence[Comparison], seed: int
) -> dict[str, float]:
    """Agreement within each panel and with gold on candidates that everyone ranks."""
    if not candidates:
        return {}
    gold_ranks = rankings_by_labeler(gold)[GOLD_LABELER]
    metrics: dict[str, float] = {}
    panels: Mapping[str, Sequence[Labeler]] = {"training": panel.training, "heldout": panel.held_out}
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
            "give comparisons, or use comparisons.source=sample_and_label in the sandbox"
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
    config: ComparisonsConfig,
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


def _named(name: str, agreement: Agreement) -> dict[str, float]:
    """Agreement as metrics; what could not be measured is left out."""
    values = {name: agreement.share, f"{name}_standard_error": agreement.standard_error}
    return {key: value for key, value in values.items() if not math.isnan(value)}
