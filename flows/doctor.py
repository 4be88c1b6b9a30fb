"""Examine a run before it starts: `python -m flows.doctor experiment=small_model data_prep.folder=... model.name_or_path=...`.

The overrides are those of ``flows.rlhf``, which makes the same checks before every run. Nothing is trained or kept.
"""

import sys
import time
from collections.abc import Sequence

from flows.config import load
from flows.parser import Parser
from flows.process import environment
from flows.terminal import console
from tasks.engine.config import refuse_passwords
from tasks.engine.errors import PlumblineError


def doctor(overrides: Sequence[str]) -> int:
    """Print the page; returns the exit status: 1 where something is wrong.

    Raises:
        PlumblineError: no valid configuration.
    """
    started, screen = time.monotonic(), console()
    refuse_passwords(list(overrides))
    config = load(list(overrides))
    from flows.ask.doctor.page import show  # a mistake in the configuration is answered before
    from flows.ask.doctor.patient import Patient
    from flows.ask.doctor.table import CHECKS, examine
    from flows.process.logs import tame_logs

    tame_logs()
    patient = Patient(config)
    examined = examine(patient)
    show(screen, patient, examined)
    found = [finding.severity for findings in examined.values() for finding in findings]
    checks = sum(map(len, CHECKS.values()))
    errors, warnings = found.count("error"), found.count("warning")
    seconds = time.monotonic() - started
    screen.print(
        f"{checks} checks in {seconds:.1f} s: {errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}",
        highlight=False,
    )
    return 1 if errors else 0


def main() -> None:
    """Command line."""
    parser = Parser(prog="python -m flows.doctor", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="as of flows.rlhf: experiment=..., data_prep.folder=..., ...")
    arguments = parser.parse_args()
    assert environment.HOME
    try:
        status = doctor(arguments.overrides)
    except PlumblineError as error:
        sys.exit(f"\nerror: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(status)


if __name__ == "__main__":
    main()
