"""What of several rounds of labelling fits together."""

from tasks.comparisons.config import ComparisonsConfig


def rounds_problem(rounds: int, knobs: ComparisonsConfig, learns: bool, independent: str) -> str | None:
    """Why there cannot be so many rounds, or not of this kind, if there cannot.

    Args:
        rounds: how many.
        knobs: who ranks what.
        learns: whether PPO optimises a reward model that learns from labels.
        independent: the reward model that nothing is optimised against, or "none".
    """
    if rounds > 1 and not (knobs.samples and learns):
        why = "no reward model learns from labels" if knobs.samples else "comparisons.source is given"
        return f"rounds is {rounds} and {why}; set rounds=1, or have responses ranked for a reward model"
    if knobs.selection == "random":
        return None
    if rounds == 1:
        return (
            "comparisons.selection is adversarial, which counts from the second round on, and rounds is 1; set rounds=2 or "
            "more, or comparisons.selection=random"
        )
    if independent == "none":
        return (
            "comparisons.selection is adversarial, which asks the independent reward model, and independent_reward_model is "
            "none; set independent_reward_model=other_seed or disjoint_half"
        )
    return None
