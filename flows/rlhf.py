"""InstructGPT from raw data to an evaluated policy: `python -m flows.rlhf ppo.beta=0.05`.

A stage that was run before, with the same configuration, inputs and source, is taken from the artifact store.
"""

import logging
import shlex
import sys
from pathlib import Path

from flows.ask.flags import answer, asked, take_flags
from flows.command import answer_early
from flows.config import RLHFConfig, parse
from flows.process import environment  # first: Prefect reads the environment when it is imported
from flows.process.session import prefect_session, start_ahead

if __name__ == "__main__":
    typed = answer_early("rlhf", parse, answer=answer)
    if not asked():
        if typed is not None:
            print("starting: checks, Prefect, MLflow and torch take some seconds", file=sys.stderr, flush=True)
        start_ahead(forks=typed is not None and typed.runtime.runner == "processes")

# isort: split
import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from prefect import flow

from flows.ask.preflight import check_ahead
from flows.instructgpt import instructgpt
from flows.process.bars import Bars
from flows.process.deadline import DEADLINE, ends_in_time
from flows.process.fork_server import warm_up
from flows.process.logs import tame_logs
from flows.run.data_account import say_what_happened
from flows.run.nothing_new import NothingNew, skipped
from flows.run.pipeline import Pipeline
from flows.run.promotion import EXIT_STATUS, GateFailed, promote
from flows.run.summary import Outcome, say_goodbye
from flows.run.waiting import EXIT_STATUS as AWAITING
from flows.run.waiting import await_labels
from flows.sweep.point import run_point
from flows.sweep.session import reported_at_the_end
from tasks.engine.errors import AwaitingLabels, PlumblineError
from tasks.engine.os_errors import probe, readable_os_errors


@flow(name="rlhf", flow_run_name="{config.tracking.run_name}", log_prints=False)
def rlhf(config: RLHFConfig) -> Outcome:
    """Align a language model with human preferences (InstructGPT, arXiv:2203.02155).

    Args:
        config: the whole run, validated.

    Returns:
        Where the policy, the report and the tracked run lie, and the final metrics. With ``tracking.skip_when_nothing_new`` and
        nothing new, the flow ends in the state ``NothingNew`` instead.

    Raises:
        GateFailed: the policy broke its budget; the flow's state has the same name, and the results are complete.
        AwaitingLabels: people have to label first; the flow's state has the same name.
        PlumblineError: a stage found something that the user can put right.
    """
    if (nothing := skipped(config, Outcome)) is not None:
        return nothing
    while True:
        try:
            with Pipeline(config) as run:
                report, policy = instructgpt(config, run)
                run.when_done("data_prep", say_what_happened)
                return promote(run, config, report, policy)
        except AwaitingLabels as waiting:
            if (ended := await_labels(waiting, Outcome)) is not None:
                return ended


@hydra.main(config_path="../conf", config_name="rlhf", version_base="1.3")
def main(values: DictConfig) -> list[float] | None:
    """One configuration that Hydra composed: validate, check, run. In a sweep Hydra calls this once a point."""
    tame_logs()
    try:
        if asked():
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                print(f"\n{' '.join(HydraConfig.get().overrides.task) or 'as configured'}")
            answer(parse(values))
        elif HydraConfig.get().mode == RunMode.MULTIRUN:
            logging.getLogger("plumbline").setLevel(logging.WARNING)  # the sweep's table says what was found
            return run_point(values, rlhf)
        else:
            config = parse(values)
            check_ahead(config)
            logging.getLogger("plumbline").info("checked; Prefect and MLflow start")
            DEADLINE.allow(config.runtime.stop_seconds or 0.0)
            if config.runtime.runner == "processes":
                warm_up()  # while the server starts
            shown = Bars(None, config.runtime.progress, waiting_for="Prefect's server and MLflow")
            with readable_os_errors(config.tracking.folder), prefect_session(config.tracking.prepare, shown):
                outcome = rlhf(config)
            if isinstance(outcome, NothingNew):
                print(f"\n{outcome.sentence}")
            else:
                say_goodbye(outcome, config)
    except GateFailed as failed:
        say_goodbye(failed.outcome, config)
        print(f"\n{failed}", file=sys.stderr)
        sys.exit(EXIT_STATUS)
    except AwaitingLabels as waiting:
        print(f"\n{waiting}", file=sys.stderr)
        sys.exit(AWAITING)
    except PlumblineError as error:
        sys.exit(f"\nerror: {error}")
    return None


def command_line() -> None:
    """`python -m flows.rlhf`: Hydra, with one sentence instead of a traceback for what the user can put right."""
    typed = sys.argv[1:]
    try:
        sys.argv[1:] = take_flags(typed)
        probe(environment.HOME)  # where Hydra makes a folder before this program has a say
        with ends_in_time(), reported_at_the_end():
            main()
    except PlumblineError as error:
        sys.exit(f"\nerror: {error}")
    except KeyboardInterrupt:
        again = shlex.join([Path(sys.executable).name, "-m", "flows.rlhf", *typed])
        print(f"\ninterrupted; the same command goes on from what is saved: {again}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    command_line()
