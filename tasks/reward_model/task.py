"""The reward model as a task."""

from collections.abc import Mapping, Sequence

from tasks.engine.artifacts import write_json
from tasks.engine.stage import Metrics, Workshop
from tasks.language.adapters import save_adapter
from tasks.language.classifier import save_reward_model
from tasks.language.models import ScalarModel
from tasks.language.shards import whole
from tasks.records.comparison_sets import read_comparisons, take_part
from tasks.records.data import PreparedData
from tasks.records.records import Comparison
from tasks.reward_model.accuracy import accuracy_report
from tasks.reward_model.body import model_to_train
from tasks.reward_model.config import RewardModelConfig
from tasks.reward_model.train import RewardLearner

ACCURACY = {
    "valid": "valid/accuracy",
    "valid_heldout_labelers": "valid/accuracy_heldout_labelers",
    "valid_gold": "valid/accuracy_gold",
}


def train_reward_model(shop: Workshop, config: RewardModelConfig) -> Metrics:
    """Train a scalar head on a trunk, set the zero of its scores, measure it on held-out rankings."""
    data = PreparedData(shop.input("data"))
    sets = read_comparisons(shop.input("comparisons"))
    training = take_part(sets["train"], config.trained_on)
    shop.uses(shop.input("comparisons") / "train.arrow", "comparisons/train", len(training), "training")
    tokenizer = data.tokenizer()
    model = model_to_train(config, shop.input("sft") / "policy", tokenizer, shop.runtime)
    learner = RewardLearner(model, training, tokenizer, config, shop.runtime)
    for _ in shop.train(learner):
        pass
    learner.model = model = whole(model)
    metrics = learner.normalise(data.demonstrations("train"))
    save_reward_model(model, tokenizer, shop.folder / "model")
    save_adapter(model.backbone, shop.folder / "adapter")
    return metrics | _accuracy(shop, learner, sets)


def validate_reward_model(shop: Workshop, config: RewardModelConfig) -> Metrics:
    """Measure the reward model of the round before on this round's rankings: what the policy has learnt to write since."""
    data = PreparedData(shop.input("data"))
    sets = read_comparisons(shop.input("comparisons"))
    model = ScalarModel.load(shop.input("reward_model") / "model", shop.runtime.device)
    return _accuracy(shop, RewardLearner(model, sets["train"], data.tokenizer(), config, shop.runtime), sets)


def _accuracy(shop: Workshop, learner: RewardLearner, sets: Mapping[str, Sequence[Comparison]]) -> dict[str, float]:
    """On every set of held-out rankings, as metrics and as a file."""
    metrics, reports = {}, {}
    for name, comparisons in sets.items():
        if name in ACCURACY:
            report = reports[name] = accuracy_report(comparisons, learner.score(comparisons))
            if report["pairs"]:
                metrics[ACCURACY[name]] = report["accuracy"]
    if reports.get("valid", {}).get("pairs"):
        report = reports["valid"]
        metrics["valid/ece"] = report["ece"]
        by_longer = {"preferred": "valid/accuracy_preferred_longer", "other": "valid/accuracy_preferred_shorter"}
        metrics |= {
            by_longer[name]: found["accuracy"] for name, found in report["by_longer"].items() if name in by_longer
        }
        metrics |= {"valid/tie_discrimination": report["ties"]["discrimination"]} if report["ties"] else {}
    write_json(shop.folder / "accuracy.json", reports)
    shop.log.file(shop.folder / "accuracy.json")
    return metrics
