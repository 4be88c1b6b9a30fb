"""Every policy of a pipeline, once, the one that a run is judged by first."""

from typing import Literal, NamedTuple


class Policy(NamedTuple):
    """One policy."""

    name: str
    """In metric names; a trained policy's stage is called so."""
    title: str
    """On paper."""
    role: Literal["own", "rival", "start", "yardstick"]
    """The run's own, optimised against its reward model; a rival, trained in another way and shown beside; what they start
    from; or what shows how much a difference means."""


POLICIES = {
    policy.name: policy
    for policy in (
        Policy("ppo_ptx", "PPO-ptx", "own"),
        Policy("ppo", "PPO (gamma = 0)", "own"),
        Policy("rloo", "RLOO", "rival"),
        Policy("grpo", "GRPO", "rival"),
        Policy("rejection_sampling", "Rejection sampling", "rival"),
        Policy("random_control", "Random samples", "rival"),
        Policy("dpo", "DPO", "rival"),
        Policy("sft", "SFT", "start"),
        Policy("ppo_init", "PPO-init", "start"),
        Policy("base", "Base", "start"),
        Policy("prompted", "Base, prompted", "start"),
        Policy("base_again", "Base, other seed", "yardstick"),
        Policy("yardstick", "Yardstick", "yardstick"),
    )
}
START = "ppo_init"
"""Where PPO and its rivals start, and what their KL is measured to."""

YARDSTICK = "yardstick"
"""A model from elsewhere that many runs are compared with."""


def names_of(*roles: str) -> list[str]:
    """Names of the policies with one of these roles, in order."""
    return [policy.name for policy in POLICIES.values() if policy.role in roles]
