"""Numbers that are each allowed and do not belong together: batches, epochs, averages, warm-ups and the rows there are."""

from collections.abc import Iterator

from flows.ask.doctor.finding import found
from flows.ask.doctor.patient import Patient
from tasks.engine.findings import Finding

MANY_PASSES = 20
"""Times that PPO may ask one prompt; ours, the paper's runs ask 8 times."""
LARGE_RATE = 1e-2
"""Learning rate of Adam above which trained models fall apart; ours."""


def smaller_than_a_batch(patient: Patient) -> Iterator[Finding]:
    """A batch that takes all rows leaves one step an epoch."""
    config, rows = patient.config, patient.rows
    users = {name: (knobs, rows.demonstrations) for name, knobs in config.fine_tuning_runs.items()}
    users |= {name: (knobs, rows.comparisons) for name, knobs in config.preference_runs.items()}  # type: ignore[misc]
    users["reward_model"] = (config.reward_model, rows.comparisons)  # type: ignore[assignment]
    for name, (knobs, counted) in users.items():
        if counted is not None and knobs.batch_size > counted.number:
            yield found(
                "warning",
                f"{name}.batch_size",
                f"{knobs.batch_size}, and {counted.number} rows to train on",
                "several batches an epoch: this is one optimizer step an epoch",
                f"set {name}.batch_size={max(1, counted.number // 8)}",
            )


def passes(patient: Patient) -> Iterator[Finding]:
    """PPO asks its prompts again and again when there are few."""
    config, prompts = patient.config, patient.rows.rl_prompts
    if prompts is None:
        return
    asked = config.ppo.episodes / config.ppo.responses_per_prompt / prompts.number
    if asked > MANY_PASSES:
        few = MANY_PASSES * prompts.number * config.ppo.responses_per_prompt
        per_iteration = config.ppo.episodes_per_iteration
        yield found(
            "warning",
            "ppo.episodes",
            f"{config.ppo.episodes:,} episodes of {prompts.number} prompts, each asked {asked:,.1f} times",
            f"at most {MANY_PASSES} times",
            f"set ppo.episodes={max(1, few // per_iteration) * per_iteration} or add prompts",
        )


def average(patient: Patient) -> Iterator[Finding]:
    """The averaged weights are the result; over a longer time than the run has, they are mostly the start."""
    ppo = patient.config.ppo
    steps = ppo.optimizer_steps if ppo.ema_every == "step" else ppo.iterations
    left = ppo.ema_decay**steps
    if left > 0.5:
        fits = max(0.0, round(1 - 4 / max(steps, 4), 3))
        yield found(
            "warning",
            "ppo.ema_decay",
            f"{ppo.ema_decay:g} over {steps} steps, so that {left:.0%} of the result is PPO's start",
            "an average that forgets the start",
            f"set ppo.ema_decay={fits:g}, or train longer",
        )


def warmup(patient: Patient) -> Iterator[Finding]:
    """A warm-up as long as the run never reaches its learning rate."""
    ppo = patient.config.ppo
    if ppo.iterations > 1 and ppo.warmup_iterations >= ppo.iterations:
        yield found(
            "warning",
            "ppo.warmup_iterations",
            f"{ppo.warmup_iterations} of {ppo.iterations} iterations",
            "a warm-up that ends early in the run",
            f"set ppo.warmup_iterations={ppo.iterations // 10}, or raise ppo.episodes",
        )


def brake(patient: Patient) -> Iterator[Finding]:
    """A brake compares a window of scorings with an earlier one, which a short run never has."""
    ppo = patient.config.ppo
    needed = 2 * ppo.sentinel.window
    if ppo.brake != "off" and ppo.scorings < needed:
        yield found(
            "warning",
            "ppo.brake",
            f"{ppo.brake}, and {ppo.scorings} scorings by the held-out judges in {ppo.iterations} iterations",
            f"two windows of ppo.sentinel.window={ppo.sentinel.window}, so {needed} scorings: before them no fall is seen",
            "train longer, set ppo.sentinel.every=1 or a smaller ppo.sentinel.window, or ppo.brake=off",
        )


def objective(patient: Patient) -> Iterator[Finding]:
    """What lets a policy run away: no KL at all, a learning rate of another age."""
    config = patient.config
    if config.ppo.beta == 0:
        yield found(
            "warning",
            "ppo.beta",
            "0, so that nothing ties the policy to where it started",
            "a penalty, unless over-optimisation is what you study",
            "set ppo.beta=0.02 (the paper's)",
        )
    rates = {
        "sft.adam": config.sft.adam,
        "ppo_init.adam": config.ppo_init.adam,
        "reward_model.adam": config.reward_model.adam,
        "ppo.policy_adam": config.ppo.policy_adam,
        "ppo.value_adam": config.ppo.value_adam,
    }
    for name, adam in rates.items():
        if adam.learning_rate > LARGE_RATE:
            yield found(
                "warning",
                f"{name}.learning_rate",
                f"{adam.learning_rate:g}",
                f"at most {LARGE_RATE:g}; pretrained models are tuned with about 1e-5",
                f"check the exponent: {name}.learning_rate=1e-5",
            )
