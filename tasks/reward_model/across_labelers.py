"""Cross-validation over groups of labelers as a task."""

from collections.abc import Sequence

from tasks.engine.artifacts import write_json
from tasks.engine.stage import Metrics, Workshop
from tasks.records.comparison_sets import read_comparisons
from tasks.records.data import PreparedData
from tasks.records.records import Comparison
from tasks.reward_model.body import model_to_train
from tasks.reward_model.cross_labeler import Scorer, cross_labeler_accuracy, cross_labeler_folds
from tasks.reward_model.job import AcrossLabelersJob
from tasks.reward_model.train import RewardLearner


def validate_across_labelers(shop: Workshop, config: AcrossLabelersJob) -> Metrics:
    """Train one reward model per group of labelers without that group, and measure it on both (InstructGPT 4.1).

    The models are not kept. A killed stage starts afresh: it is a measurement, not part of the road to the policy.
    """
    data = PreparedData(shop.input("data"))
    sets, tokenizer, knobs = read_comparisons(shop.input("comparisons")), data.tokenizer(), config.reward_model

    def fit(training: Sequence[Comparison]) -> Scorer:
        model = model_to_train(knobs, shop.input("sft") / "policy", tokenizer, shop.runtime)
        learner = RewardLearner(model, training, tokenizer, knobs, shop.runtime)
        for _ in range(learner.total_steps):
            learner.step()
        return learner.score

    folds = cross_labeler_folds(
        [item.labeler_id for item in sets["train"]], config.labeler_folds, config.reward_model.seed
    )
    found = cross_labeler_accuracy(sets["train"], sets["valid"], folds, fit)
    write_json(shop.folder / "across_labelers.json", found | {"folds": [fold._asdict() for fold in folds]})
    return found
