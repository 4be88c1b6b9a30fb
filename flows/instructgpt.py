"""The stages in their order; reads like the paper's figure 2, one line a stage."""

from collections.abc import Callable
from typing import Any, NamedTuple

from flows.config import RLHFConfig
from tasks.adopt import adopt_model
from tasks.adopt.config import AdoptJob
from tasks.compare import compare_policies, compare_rounds
from tasks.comparisons import collect_comparisons, sample_responses
from tasks.data_prep import prepare_data
from tasks.dpo import train_dpo
from tasks.measure import evaluate_policy
from tasks.ppo import train_ppo
from tasks.pretrain import train_base
from tasks.rejection_sampling import draw_samples
from tasks.revise import revise_demonstrations
from tasks.reward_model import ask_questions, train_reward_model, validate_across_labelers, validate_reward_model
from tasks.sft import fine_tune, select_epoch


class Round(NamedTuple):
    """What a round of labelling and optimisation made."""

    comparisons: Any
    """Of this round and of all before it; None where no stage learns from rankings."""
    reward_models: dict[str, Any]
    """By the name of PPO's input: one, an ensemble, or none where nobody asks for one."""
    independent: dict[str, Any]
    """The reward model that nothing is optimised against, where there is one."""
    before: dict[str, Any]
    """How the reward model of the round before it does on this round's responses."""
    rivals: dict[str, Any]
    """By stage name, of the last round: what learns from the rankings, or from samples of PPO-init."""
    ppo: dict[str, Any]
    """By stage name."""


def instructgpt(config: RLHFConfig, run: Callable[..., Any]) -> tuple[Any, Any]:
    """``run(task, group, config, about=..., **inputs)`` runs one stage, or only looks it up.

    Returns:
        What ``run`` returned for the report and for the policy.
    """
    data = run(prepare_data, "data_prep", config.data_prep_job)
    if config.revise.prompts:
        data = run(revise_demonstrations, "revise", config.revise, data=data)
    base = run(train_base, "pretrain", config.pretrain_job, data=data)
    tuned = {name: run(fine_tune, name, knobs, data=data, base=base) for name, knobs in config.fine_tuning_runs.items()}
    sft, ppo_init = tuned["sft"], tuned.get("ppo_init", tuned["sft"])
    world = {"world": data} if config.data_prep.source == "sandbox" else {}
    start = {"data": data, "sft": sft, "ppo_init": ppo_init, **world}
    rounds: list[Round] = []
    for number in range(1, config.rounds + 1):
        rounds.append(one_round(config, run, number, start, rounds[-1:]))
    last = rounds[-1]

    if config.reward_questions is not None:
        run(
            ask_questions,
            "reward_questions",
            config.questions_job,
            data=data,
            reward_model=last.reward_models["reward_model"],
        )
    if config.labeler_folds:
        ranked = {"data": data, "comparisons": last.comparisons, "sft": sft}
        run(validate_across_labelers, "across_labelers", config.across_labelers, **ranked)
    if config.sft.selection == "reward_model":
        chosen_by = last.reward_models["reward_model"]
        sft = run(select_epoch, "sft_selected", config.sft, data=data, sft=sft, reward_model=chosen_by)
    policies = {"base": base, **tuned, "sft": sft, **last.rivals, **last.ppo}

    judged = {"data": data, "reference": ppo_init, **last.reward_models, **world}
    if config.evaluation.judges.independent_reward_model is None:  # one that is given by its folder judges instead
        judged |= last.independent
    sheets = {
        name: run(evaluate_policy, "evaluation", config.measured, about=name, policy=policy, **judged)
        for name, policy in policies.items()
    }
    sheets.setdefault("ppo_init", sheets["sft"])
    if config.evaluation.few_shot.asked:
        prompted = config.measured_prompted
        sheets["prompted"] = run(evaluate_policy, "evaluation", prompted, about="prompted", policy=base, **judged)
    if config.noise_floor:
        again = config.measured_again
        sheets["base_again"] = run(evaluate_policy, "evaluation", again, about="base_again", policy=base, **judged)
    if config.yardstick is not None:
        adopt = AdoptJob(folder=config.yardstick, kind="policy", knob="yardstick")
        other, measured = run(adopt_model, "adopted", adopt, about="yardstick"), config.measured
        sheets["yardstick"] = run(evaluate_policy, "evaluation", measured, about="yardstick", policy=other, **judged)
    if len(rounds) > 1:
        over_rounds(config, run, rounds, sheets, judged)
    curves = {f"{name}_policy": policy for name, policy in last.ppo.items()}
    if config.sft.selection == "reward_model":
        curves["sft_policy"] = sft
    report = run(compare_policies, "evaluation", config.evaluation.compared, **sheets, **curves)
    return report, next(iter(last.ppo.values()))


def one_round(
    config: RLHFConfig, run: Callable[..., Any], number: int, start: dict[str, Any], earlier: list[Round]
) -> Round:
    """Responses of the last round's policy are ranked, reward models learn from all rankings so far, PPO goes on.

    The policy starts where the last round's ended; its KL is measured to PPO-init in every round, so that beta bounds the whole
    way. A reward model starts from SFT each time.

    Args:
        config: the whole run.
        run: as in ``instructgpt``.
        number: of the round, from 1.
        start: data, sft, ppo_init, and the world where there is one.
        earlier: the round before this one, if there is one.
    """
    named = {} if number == 1 else {"about": f"round_{number}"}
    data, sft = {"data": start["data"]}, {"sft": start["sft"]}
    world = {"world": start["world"]} if "world" in start else {}
    policy = {"policy": next(iter(earlier[0].ppo.values())) if earlier else start["sft"]}
    source, ranked, comparisons = policy, {}, None
    job = config.comparisons_job(number)
    if config.reads_comparisons and job.comparisons.sampled_apart:
        judges = judges_of(earlier[0]) if job.comparisons.selection == "adversarial" else {}
        drawing = config.sampling_job(number)
        source = {"candidates": run(sample_responses, "candidates", drawing, **named, **data, **policy, **judges)}
    before = {"earlier": earlier[0].comparisons} if earlier else {}
    if config.reads_comparisons:
        comparisons = run(collect_comparisons, "comparisons", job, **named, **data, **source, **before, **world)
        ranked = {**data, "comparisons": comparisons, **sft}
    reward_models = {}
    for name, training in config.reward_model_runs.items():
        member = [f"member_{number}" for number in name.split("reward_model_")[1:]]
        about = "-".join([*member, *named.values()])
        reward_models[name] = run(train_reward_model, "reward_model", training, about=about, **ranked)
    independent = {}
    if config.independent_reward_model != "none":
        about = "independent" if number == 1 else f"independent-round_{number}"
        independent["independent_reward_model"] = run(
            train_reward_model, "reward_model", config.independent_reward_model_run, about=about, **ranked
        )
    checked = {}
    if earlier:
        old = {**data, "comparisons": comparisons, "reward_model": earlier[0].reward_models["reward_model"]}
        checked["before"] = run(validate_reward_model, "reward_model_before", config.reward_model_run, **named, **old)
    trained = {**data, "ppo_init": start["ppo_init"], **reward_models, **independent, **world}
    shared = {**data, "ppo_init": start["ppo_init"]}
    rivals = train_rivals(config, run, shared, comparisons, reward_models) if number == config.rounds else {}
    if config.ppo_starts_from != "ppo_init":
        trained["start"] = rivals[config.ppo_starts_from]
    ppo = {}
    for name, of_policy in config.ppo_runs_of(number).items():
        goes_on = {"start": earlier[0].ppo[name]} if earlier else {}
        ppo[name] = run(train_ppo, name, of_policy, **named, **trained, **goes_on)
    return Round(comparisons, reward_models, independent, checked, rivals, ppo)


def judges_of(made: Round) -> dict[str, Any]:
    """What a round's policy was optimised against, and what nothing was optimised against."""
    return {"optimised": made.reward_models["reward_model"], "held_out": made.independent["independent_reward_model"]}


def train_rivals(
    config: RLHFConfig, run: Callable[..., Any], shared: dict[str, Any], comparisons: Any, reward_models: dict[str, Any]
) -> dict[str, Any]:
    """What is trained beside PPO from PPO-init: on the rankings themselves, or on samples that the reward model chose."""
    rivals = {
        name: run(train_dpo, name, knobs, **shared, comparisons=comparisons)
        for name, knobs in config.preference_runs.items()
    }
    if config.sampling_runs:
        drawn, learning = config.rejection_sampling.samples, config.rejection_sampling.fine_tuning
        samples = run(draw_samples, "rejection_sampling", drawn, about="samples", **shared, **reward_models)
        for name, chosen in config.sampling_runs.items():
            learned = {"data": shared["data"], "base": shared["ppo_init"], chosen: samples}
            rivals[name] = run(fine_tune, name, learning, **learned)
    return rivals


def over_rounds(
    config: RLHFConfig, run: Callable[..., Any], rounds: list[Round], sheets: dict[str, Any], judged: dict[str, Any]
) -> None:
    """The run's own policy after each round, measured alike: by the last round's reward models, on the same prompts."""
    own = next(iter(rounds[-1].ppo))
    compared = {"sft": sheets["sft"]}
    for number, made in enumerate(rounds, start=1):
        knobs, about = config.measured, f"{own}_round_{number}"
        last = number == len(rounds)
        policy = made.ppo[own]
        sheet = sheets[own] if last else run(evaluate_policy, "evaluation", knobs, about=about, policy=policy, **judged)
        compared |= {f"sheet_{number}": sheet, f"reward_model_{number}": made.reward_models["reward_model"]}
        compared |= {f"{name}_{number}": stage for name, stage in made.before.items()}
    run(compare_rounds, "rounds", config.evaluation.compared, **compared)
