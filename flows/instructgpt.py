"""The stages in their order; reads like the paper's figure 2, one line a stage."""

from collections.abc import Callable
from typing import Any

from flows.config import RLHFConfig
from tasks.adopt.config import AdoptJob
from tasks.adopt.task import adopt_model
from tasks.compare.task import compare_policies
from tasks.comparisons.task import collect_comparisons
from tasks.data_prep.task import prepare_data
from tasks.dpo.task import train_dpo
from tasks.measure.task import evaluate_policy
from tasks.ppo.task import train_ppo
from tasks.pretrain.task import train_base
from tasks.rejection_sampling.task import draw_samples
from tasks.reward_model.across_labelers import validate_across_labelers
from tasks.reward_model.ask_questions import ask_questions
from tasks.reward_model.task import train_reward_model
from tasks.sft.task import fine_tune, select_epoch


def instructgpt(config: RLHFConfig, run: Callable[..., Any]) -> tuple[Any, Any]:
    """``run(task, group, config, about=..., **inputs)`` runs one stage, or only looks it up.

    Returns:
        What ``run`` returned for the report and for the policy.
    """
    data = run(prepare_data, "data_prep", config.data_prep_job)
    base = run(train_base, "pretrain", config.pretrain_job, data=data)
    sft = run(fine_tune, "sft", config.sft, data=data, base=base)
    ppo_init = run(fine_tune, "ppo_init", config.ppo_init, data=data, base=base)
    world = {"world": data} if config.data_prep.source == "sandbox" else {}
    comparisons = run(collect_comparisons, "comparisons", config.comparisons, data=data, sft=sft, **world)
    ranked = {"data": data, "comparisons": comparisons, "sft": sft}
    reward_model = run(train_reward_model, "reward_model", config.reward_model_run, **ranked)
    independent = {}
    if config.independent_reward_model != "none":
        knobs = config.independent_reward_model_run
        independent["independent_reward_model"] = run(
            train_reward_model, "reward_model", knobs, about="independent", **ranked
        )

    if config.reward_questions is not None:
        run(ask_questions, "reward_questions", config.questions_job, data=data, reward_model=reward_model)
    if config.labeler_folds:
        run(validate_across_labelers, "across_labelers", config.across_labelers, **ranked)

    if config.sft.selection == "reward_model":
        sft = run(select_epoch, "sft_selected", config.sft, data=data, sft=sft, reward_model=reward_model)
    started = {"data": data, "ppo_init": ppo_init}
    rivals = {
        name: run(train_dpo, name, knobs, **started, comparisons=comparisons)
        for name, knobs in config.preference_runs.items()
    }
    if config.sampling_runs:
        drawn, learning = config.rejection_sampling.samples, config.rejection_sampling.fine_tuning
        samples = run(draw_samples, "rejection_sampling", drawn, about="samples", **started, reward_model=reward_model)
        for name, chosen in config.sampling_runs.items():
            rivals[name] = run(fine_tune, name, learning, data=data, base=ppo_init, **{chosen: samples})
    trained = started | {"reward_model": reward_model, **independent, **world}
    if config.ppo_starts_from != "ppo_init":
        trained["start"] = rivals[config.ppo_starts_from]
    ppo = {name: run(train_ppo, name, knobs, **trained) for name, knobs in config.ppo_runs.items()}
    policies = {"base": base, "sft": sft, "ppo_init": ppo_init, **rivals, **ppo}

    judged = {"data": data, "reference": ppo_init, "reward_model": reward_model, **world}
    if config.evaluation.judges.independent_reward_model is None:  # one that is given by its folder judges instead
        judged |= independent
    sheets = {
        name: run(evaluate_policy, "evaluation", config.evaluation.measured, about=name, policy=policy, **judged)
        for name, policy in policies.items()
        if name != "ppo_init" or not config.starts_from_sft
    }
    sheets.setdefault("ppo_init", sheets["sft"])
    if config.noise_floor:
        again = config.evaluation.measured_again
        sheets["base_again"] = run(evaluate_policy, "evaluation", again, about="base_again", policy=base, **judged)
    if config.yardstick is not None:
        adopt = AdoptJob(folder=config.yardstick, kind="policy", knob="yardstick")
        other, measured = run(adopt_model, "adopted", adopt, about="yardstick"), config.evaluation.measured
        sheets["yardstick"] = run(evaluate_policy, "evaluation", measured, about="yardstick", policy=other, **judged)
    curves = {f"{name}_policy": policy for name, policy in ppo.items()}
    if config.sft.selection == "reward_model":
        curves["sft_policy"] = sft
    report = run(compare_policies, "evaluation", config.evaluation.compared, **sheets, **curves)
    return report, next(iter(ppo.values()))
