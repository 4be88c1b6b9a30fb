"""InstructGPT from raw data to an evaluated policy: `python -m flows.rlhf ppo.beta=0.05`.

``instructgpt`` reads like the paper's figure 2. Each line is one stage; a stage that was run before, with the same
configuration, inputs and source, is taken from the artifact store.
"""

import logging
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.process import environment  # first: Prefect reads the environment when it is imported

from flows.config import RLHFConfig, parse  # isort: skip

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from prefect import flow

from flows.ask.flags import answer, asked, take_flags
from flows.ask.preflight import check
from flows.process.logs import tame_logs
from flows.process.runners import warm_up
from flows.process.session import prefect_session
from flows.run.data_account import say_what_happened
from flows.run.pipeline import Pipeline
from flows.run.promotion import EXIT_STATUS, GateFailed, promote
from flows.run.summary import Outcome, say_goodbye
from flows.sweep.plan import require_plugins
from flows.sweep.point import run_point
from flows.sweep.session import reported_at_the_end
from tasks.compare.task import compare_policies
from tasks.comparisons.task import collect_comparisons
from tasks.data_prep.task import prepare_data
from tasks.dpo.task import train_dpo
from tasks.engine.errors import PlumblineError
from tasks.engine.os_errors import probe, readable_os_errors
from tasks.engine.tracking import load
from tasks.measure.task import evaluate_policy
from tasks.ppo.task import train_ppo
from tasks.pretrain.task import train_base
from tasks.reward_model.across_labelers import validate_across_labelers
from tasks.reward_model.task import train_reward_model
from tasks.sft.task import fine_tune, select_epoch


@flow(name="rlhf", flow_run_name="{config.tracking.run_name}", log_prints=False)
def rlhf(config: RLHFConfig) -> Outcome:
    """Align a language model with human preferences (InstructGPT, arXiv:2203.02155).

    Args:
        config: the whole run, validated.

    Returns:
        Where the policy, the report and the tracked run lie, and the final metrics.

    Raises:
        GateFailed: the policy broke its budget; the flow's state has the same name, and the results are complete.
        PlumblineError: a stage found something that the user can put right.
    """
    with Pipeline(config) as run:
        report, policy = instructgpt(config, run)
        run.when_done("data_prep", say_what_happened)
        return promote(run, config, report, policy)


def instructgpt(config: RLHFConfig, run: Callable[..., Any]) -> tuple[Any, Any]:
    """The stages in their order; ``run(task, stage, config, **inputs)`` runs one of them, or only looks it up.

    Returns:
        What ``run`` returned for the report and for the policy.
    """
    data = run(prepare_data, "data_prep", config.data_prep_job)
    base = run(train_base, "pretrain", config.pretrain_job, data=data)
    sft = run(fine_tune, "sft", config.sft, data=data, base=base)
    ppo_init = run(fine_tune, "ppo_init", config.ppo_init, data=data, base=base)
    comparisons = run(collect_comparisons, "comparisons", config.comparisons, data=data, sft=sft)
    ranked = {"data": data, "comparisons": comparisons, "sft": sft}
    reward_model = run(train_reward_model, "reward_model", config.reward_model_run, **ranked)
    independent = {}
    if config.independent_reward_model != "none":
        knobs = config.independent_reward_model_run
        independent["independent_reward_model"] = run(train_reward_model, "reward_model-independent", knobs, **ranked)

    if config.labeler_folds:
        run(validate_across_labelers, "across_labelers", config.across_labelers, **ranked)

    if config.sft.selection == "reward_model":
        sft = run(select_epoch, "sft_selected", config.sft, data=data, sft=sft, reward_model=reward_model)
    trained = {"data": data, "ppo_init": ppo_init, "reward_model": reward_model, **independent}
    ppo = {name: run(train_ppo, name, knobs, **trained) for name, knobs in config.ppo_runs.items()}
    rivals = {}
    if config.train_dpo:
        rivals["dpo"] = run(train_dpo, "dpo", config.dpo_run, data=data, comparisons=comparisons, ppo_init=ppo_init)
    policies = {"base": base, "sft": sft, **rivals, **ppo}

    judged = {"data": data, "reward_model": reward_model}
    if config.evaluation.judges.independent_reward_model is None:  # one that is given by its folder judges instead
        judged |= independent
    measured = config.evaluation.of_one_policy
    sheets = {
        name: run(evaluate_policy, f"evaluation-{name}", measured, policy=policy, reference=ppo_init, **judged)
        for name, policy in policies.items()
    }
    curves = {f"{name}_policy": policy for name, policy in ppo.items()}
    report = run(compare_policies, "evaluation", config.evaluation, **sheets, **curves)
    return report, next(iter(ppo.values()))


@hydra.main(config_path="../conf", config_name="rlhf", version_base="1.3")
def main(values: DictConfig) -> list[float] | None:
    """One configuration that Hydra composed: validate, check, run. In a sweep Hydra calls this once a point."""
    tame_logs()
    for handler in logging.getLogger().handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(_not_told_twice)
    try:
        if asked():
            answer(parse(values))
        elif HydraConfig.get().mode == RunMode.MULTIRUN:
            logging.getLogger("plumbline").setLevel(logging.WARNING)  # the sweep's table says what was found
            return run_point(values, rlhf)
        else:
            config = parse(values)
            check(config)
            if config.runtime.runner == "processes":
                warm_up()  # while the server starts
            with readable_os_errors(config.tracking.folder), prefect_session(meanwhile=load):
                outcome = rlhf(config)
            say_goodbye(outcome, config)
    except GateFailed as failed:
        say_goodbye(failed.outcome, config)
        print(f"\n{failed}", file=sys.stderr)
        sys.exit(EXIT_STATUS)
    except PlumblineError as error:
        sys.exit(f"\nerror: {error}")
    return None


def _not_told_twice(record: logging.LogRecord) -> bool:
    """Keep Prefect's tracebacks of failed stages in the log file; on the screen the sentence at the end says why."""
    return not record.name.startswith("prefect.")


def command_line() -> None:
    """`python -m flows.rlhf`: Hydra, with one sentence instead of a traceback for what the user can put right."""
    typed = sys.argv[1:]
    try:
        sys.argv[1:] = take_flags(typed)
        require_plugins(typed)
        probe(environment.HOME)  # where Hydra makes a folder before this program has a say
        with reported_at_the_end():
            main()
    except PlumblineError as error:
        sys.exit(f"\nerror: {error}")
    except KeyboardInterrupt:
        again = shlex.join([Path(sys.executable).name, "-m", "flows.rlhf", *typed])
        print(f"\ninterrupted; the same command goes on from the last checkpoint: {again}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    command_line()
