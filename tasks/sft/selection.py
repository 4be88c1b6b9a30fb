"""Which epoch's weights become the model.

InstructGPT picks by reward-model score on validation prompts, although validation loss rises after the first epoch
(appendix C.1). The first reward model needs samples of an early SFT model, so this is a second pass: train,
compare, train the reward model, then select again among the epochs that were kept.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from tasks.engine.errors import ConfigError, TrainingDiverged


def pick_checkpoint(scores: Mapping[int, float]) -> int:
    """The epoch with the highest score; the earliest one among equals.

    ``scores`` maps an epoch number to its score. Pass negated losses to select by loss.
    """
    if not scores:
        raise ConfigError("checkpoint selection: no epoch was scored; train at least one epoch and keep its weights")
    for epoch, score in sorted(scores.items()):
        if score != score:
            raise TrainingDiverged(f"checkpoint selection: the score of epoch {epoch} is NaN; expected a finite number")
    return max(sorted(scores), key=lambda epoch: scores[epoch])


def select_by_reward(
    epoch_folders: Mapping[int, Path], mean_reward: Callable[[Path], float]
) -> tuple[int, dict[int, float]]:
    """Score every kept epoch with the current reward model and pick the best.

    Args:
        epoch_folders: folder of each epoch's weights.
        mean_reward: samples one completion per validation prompt at temperature 1 from the policy in a folder and
            returns the reward model's mean score. Give every epoch the same prompts and the same seed.

    Returns:
        The chosen epoch and the score of each.

    Source: InstructGPT appendix C.1; the loop is ours, the paper does not describe it.
    """
    scores = {epoch: mean_reward(folder) for epoch, folder in sorted(epoch_folders.items())}
    return pick_checkpoint(scores), scores
