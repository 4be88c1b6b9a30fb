"""The command line of the study: `python -m flows.study scale=quick`."""

import sys

from flows.command import answer_early
from flows.config import CONF
from flows.process import environment  # first: Prefect reads the environment when it is imported
from flows.study.config import parse_study

if __name__ == "__main__":
    answer_early("study", parse_study, CONF / "study")

# isort: split
import hydra
from omegaconf import DictConfig

from flows.process.logs import tame_logs
from flows.process.session import prefect_session
from flows.study.study import command_line, plan_of, say_goodbye, study
from tasks.engine.config import refuse_passwords
from tasks.engine.errors import PlumblineError
from tasks.engine.os_errors import probe


@hydra.main(config_path="../../conf/study", config_name="study", version_base="1.3")
def main(values: DictConfig) -> None:
    """Compose, validate, run what is missing, write the page."""
    tame_logs()
    command = command_line(sys.argv[1:])
    try:
        config = parse_study(values)
        plan_of(config)  # whatever can be known to fail is said before a server is started
        with prefect_session():
            outcome = study(config, command)
    except PlumblineError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command runs what is missing: {command}", file=sys.stderr)
        sys.exit(130)
    sys.exit(say_goodbye(outcome))


if __name__ == "__main__":
    try:
        refuse_passwords(sys.argv[1:])
        probe(environment.HOME)  # where Hydra makes a folder before this program has a say
    except PlumblineError as refused:
        sys.exit(f"\nerror: {refused}")
    main()
