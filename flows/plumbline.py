"""``plumbline rlhf ppo.beta=0.05`` for ``python -m flows.rlhf ppo.beta=0.05``, and so on for every command.

Nothing is imported here: the command replaces this process, as if it had been started with ``python -m``. The current
folder is not searched for modules, so a folder named ``tasks`` there cannot be taken for this project's.
"""

import os
import sys

COMMANDS = {
    "rlhf": "the pipeline",
    "evaluate": "one policy, measured like the pipeline's",
    "doctor": "what is wrong with a configuration, its model and its data, before anything runs",
    "chat": "talk to a policy in the terminal",
    "serve": "a policy as a chat model that labeler, judge and critic ask",
    "layouts": "on paper: what policies of 1.3B to 70B take on 1 to 64 GPUs",
    "study": "the findings of the papers on the embedded world",
    "store": "what the artifact store holds: list, verify, gc",
    "pages": "the page of Prefect or MLflow",
    "label": "the page on which people rank responses, and its files",
    "agreement": "a judge beside people's verdicts",
    "debate": "a judge's accuracy with and without arguments for both responses",
}


def main() -> None:
    """Command line."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(
            "\n".join(
                ["usage: plumbline COMMAND ...", "", *(f"  {name:<10} {what}" for name, what in COMMANDS.items())]
            )
        )
    elif name not in COMMANDS:
        from flows.misspelt import did_you_mean

        meant = did_you_mean(name, COMMANDS)
        print(f"error: {name}: no such command, there are {', '.join(COMMANDS)}{meant}", file=sys.stderr)
        sys.exit(2)
    else:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-P", "-m", f"flows.{name}", *arguments])


if __name__ == "__main__":
    main()
