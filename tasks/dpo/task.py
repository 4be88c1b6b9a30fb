"""Direct preference optimisation as a task."""

from tasks.dpo.config import DPOConfig
from tasks.dpo.train import DPOLearner
from tasks.engine.stage import Metrics, Workshop
from tasks.language.adapters import save_adapter, trainable_copy
from tasks.language.bases import load_base
from tasks.language.models import save_policy
from tasks.language.seeds import named_generator
from tasks.language.shards import whole
from tasks.records.comparison_sets import read_comparisons, take_part
from tasks.records.data import PreparedData

HELD_OUT = {"valid": "", "valid_heldout_labelers": "_heldout_labelers", "valid_gold": "_gold"}
"""Held-out sets and how their metrics end."""


def train_dpo(shop: Workshop, config: DPOConfig) -> Metrics:
    """Train PPO's start on the rankings themselves; measure its implicit rewards on held-out ones."""
    tokenizer = PreparedData(shop.input("data")).tokenizer()
    sets = read_comparisons(shop.input("comparisons"))
    training = take_part(sets["train"], config.trained_on)
    shop.uses(shop.input("comparisons") / "train.arrow", "comparisons/train", len(training), "training")
    reference = load_base(shop.input("ppo_init") / "policy", shop.runtime.device, config.adapter)
    draws = named_generator(config.seed, "dpo/adapter")
    policy = trainable_copy(reference, config.adapter, draws, shop.runtime.frozen_precision)
    learner = DPOLearner(policy, reference, training, tokenizer, config, shop.runtime)
    for _ in shop.train(learner):
        pass
    metrics = {"cost/tokens_learned": float(learner.counted_tokens)}
    for name, ending in HELD_OUT.items():
        found = learner.measure(sets.get(name, ()))
        if found is not None:
            metrics |= {f"dpo/accuracy{ending}": found.accuracy, f"dpo/margin{ending}": found.margin}
    trained = whole(learner.policy)
    save_policy(trained, tokenizer, shop.folder / "policy")
    save_adapter(trained, shop.folder / "adapter")
    return metrics
