"""A policy as a chat model for labeler, judge and critic: `python -m flows.serve model=FOLDER`.

``model`` may also be the MLflow id of a run, or a registered version such as ``models:/plumbline-policy@champion``.
"""

import os
import sys

from flows.config import load
from flows.pages import check_port
from flows.parser import Parser, policy_and_tracking
from flows.process import environment  # noqa: F401  first: sets where the databases lie
from flows.tools.policies import find_policy
from tasks.engine.errors import PlumblineError

PORT = 8000
OWN = "127.0.0.1"
GRACE_SECONDS = 3
"""For answers under way when the server is ended."""


def arguments() -> Parser:
    """What can be typed."""
    parser = Parser(prog="python -m flows.serve", description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="+", metavar="model=...", help="and the run's tracking.*, if it changed them")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, help="of the CPU; default: all")
    parser.add_argument("--together", type=int, default=8, help="most questions answered side by side; default 8")
    parser.add_argument("--seed", type=int, default=1, help="of answers at a temperature above 0")
    return parser


def main(typed: list[str]) -> None:
    """Command line: the server, until Ctrl-C."""
    parser = arguments()
    given = parser.parse_intermixed_args(typed)
    model, others = policy_and_tracking(parser, given.settings)
    if given.together < 1 or (given.threads is not None and given.threads < 1):
        parser.error("--together and --threads are at least 1")
    try:
        check_port(given.port)
        tracking = load(others).tracking
        folder = find_policy(model, tracking).folder
        import torch  # and what else takes seconds to import: a mistake in what was typed is answered before
        import uvicorn

        from flows.ask.doctor.requirements import check_device
        from flows.serve.app import create_server
        from flows.serve.respondent import Respondent

        check_device(given.device, knob="--device", otherwise="--device cpu")
        if given.threads is not None:
            torch.set_num_threads(given.threads)
        respondent = Respondent(folder, given.device, given.together, given.seed)
    except PlumblineError as error:
        sys.exit(f"error: {error}")
    address = f"http://{OWN}:{given.port}/v1"
    print(f"chat completions: {address}   (Ctrl-C ends it). As labeler, judge or critic:", flush=True)
    for knob in ("comparisons.chat", "evaluation.judges.chat", "revise.chat"):
        print(
            f"  {knob}.base_url={address} {knob}.model={respondent.name} {knob}.api_key_env=null {knob}.timeout_seconds=600",
            flush=True,
        )
    uvicorn.run(
        create_server(respondent),
        host=OWN,
        port=given.port,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # Python would wait for an answer under way, minutes maybe, that nobody can read any more
