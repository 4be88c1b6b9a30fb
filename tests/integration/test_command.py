"""What the command lines answer before they import anything heavy, and how they say what was mistyped."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flows.misspelt import did_you_mean, refused

HEAVY = ["torch", "transformers", "datasets", "prefect", "mlflow", "matplotlib", "scipy", "pandas"]
PROGRAM = f"""
import json, runpy, sys
sys.argv = ["command", *json.loads(sys.argv[2])]
try:
    runpy.run_module(MODULE, run_name="__main__")
except SystemExit as ended:
    code = ended.code
print(json.dumps([code if isinstance(code, str) else str(code or ""), [name for name in {HEAVY} if name in sys.modules]]))
"""


def answer(module: str, *arguments: str) -> tuple[str, str, list[str]]:
    """What a command prints, what it exits with, and which heavy modules it has imported by then."""
    program = PROGRAM.replace("MODULE", repr(module))
    done = subprocess.run(
        [sys.executable, "-c", program, "-", json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *output, last = done.stdout.splitlines()
    code, heavy = json.loads(last)
    return "\n".join(output), code, heavy


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        ("flows.rlhf", ["--help"], "any value of the configuration, by its full name"),
        ("flows.rlhf", ["--cfg", "job", "seed=7"], "seed: 7"),
        ("flows.evaluate", ["--help"], "beside the run's SFT policy"),
        ("flows.study", ["--cfg", "job", "workers=7"], "workers: 7"),
        ("flows.rlhf", ["--explain", "scale=miniature", "tracking.root=HOME"], "15 of 15 stages will run"),
        ("flows.store", ["--help"], "what it would delete"),
        ("flows.doctor", ["--help"], "as of flows.rlhf"),
        ("flows.layouts", ["--help"], "usage"),
        ("flows.agreement", ["--help"], "usage"),
        ("flows.chat", ["--help"], "another policy beside it"),
        ("flows.serve", ["--help"], "usage"),
    ],
)
def test_help_is_given_before_anything_heavy_is_imported(
    module: str, arguments: list[str], words: str, tmp_path: Path
) -> None:
    output, code, heavy = answer(module, *(word.replace("HOME", str(tmp_path)) for word in arguments))
    assert words in output and code == "" and heavy == []


@pytest.mark.parametrize(
    ("module", "arguments", "sentence"),
    [
        ("flows.rlhf", ["ppo.bta=0.1"], "ppo.bta: unknown key; did you mean ppo.beta?"),
        ("flows.rlhf", ["ppo.beta=-1"], "ppo.beta: Input should be greater than or equal to 0, found -1"),
        ("flows.rlhf", ["-m", "ppo.bta=0,0.1"], "ppo.bta: unknown key; did you mean ppo.beta?"),
        ("flows.rlhf", ["-m", "ppo.beta=range(0,1,0)"], "ppo.beta=range(0,1,0): found no value in it, expected one"),
        ("flows.rlhf", ["-m", "seed=range(5,1)"], "seed=range(5,1): found no value in it, expected one for each point"),
        ("flows.rlhf", ["-m", "ppo=glob(nothing*)"], "ppo=glob(nothing*): found no value in it, expected one"),
        (
            "flows.rlhf",
            ["-m", "ppo=glob(sand*)", "ppo.beta=-1"],
            "ppo.beta: Input should be greater than or equal to 0",
        ),
        ("flows.rlhf", ["--explain", "experiment=own_dta"], "did you mean own_data?"),
        (
            "flows.rlhf",
            ["~ppo.beta"],
            "ppo.beta: not there, and tracking.run_name is computed from it; give it a",
        ),
        ("flows.rlhf", ["--explan"], "--explan: unknown option; did you mean --explain? --help prints what there is"),
        ("flows.evaluate", ["--explain"], "--explain: unknown option; --help prints what there is"),
        ("flows.rlhf", ["sed"], "sed: found a word alone, expected KEY=VALUE; did you mean seed?"),
        (
            "flows.rlhf",
            ["ppo.beta"],
            "ppo.beta: found a word alone, expected KEY=VALUE; give it a value. `python -m flows.rlhf --cfg job` prints "
            "every key",
        ),
        (
            "flows.study",
            ["nonsense"],
            "nonsense: found a word alone, expected KEY=VALUE; `python -m flows.study --cfg job` prints every key",
        ),
        ("flows.study", ["scal=quick"], "scal: unknown key; did you mean scale?"),
        (
            "flows.study",
            ["scale=quik"],
            "did you mean quick?",
        ),
        ("flows.study", ["workers=0"], "workers: Input should be greater than 0, found 0"),
        ("flows.evaluate", ["polcy=x"], "polcy: unknown key; did you mean policy?"),
        ("flows.evaluate", [], "policy: no value"),
    ],
)
def test_a_mistake_is_named_before_anything_heavy_is_imported(module: str, arguments: list[str], sentence: str) -> None:
    output, code, heavy = answer(module, *arguments)
    assert code.startswith("\nerror: ") and sentence in code and output == "" and heavy == []


@pytest.mark.parametrize("question", ["--help", "--cfg job"])
def test_a_reader_that_has_seen_enough_ends_the_answer(question: str) -> None:
    line = f"{shlex.quote(sys.executable)} -m flows.rlhf {question} | true"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""


def test_hydra_s_paragraphs_become_one_sentence() -> None:
    keys = ["ppo", "ppo.beta", "dpo.beta", "experiment", "ppo.policy_adam.learning_rate"]
    said = {
        "Could not override 'expriment'.\nTo append use +": "expriment: unknown key; did you mean experiment?",
        "Could not override 'beta'.\nTo append use +": "beta: unknown key; did you mean ppo.beta or dpo.beta?",
        "Could not override 'zzz'.\nTo append use +": "zzz: unknown key; `python -m flows.rlhf --cfg job` prints every key",
        "Could not delete from config. 'ppo.bta' does not exist.": "ppo.bta: unknown key; did you mean ppo.beta?",
        "In 'rlhf': Could not find 'ppo/sandbx'\n\nAvailable options in 'ppo':\n\town_data\n\tsandbox\nConfig search path:\n": (
            "ppo=sandbx: no such choice, there are own_data, sandbox; did you mean sandbox?"
        ),
        "no viable alternative at input '[1,'\nSee https://hydra.cc": "cannot read the overrides (no viable alternative",
        "Could not append to config. An item is already at 'ppo.beta'": "+ppo.beta: found a + before a key that is there",
        "Ambiguous value for argument 'a=1,2'\n1. To use": "Ambiguous value for argument 'a=1,2': write a list as",
    }
    for message, sentence in said.items():
        found = refused(message, ["a=1,2"], keys)
        assert found.startswith(sentence) and "\n" not in found
    assert did_you_mean("entirely.other", keys) == ""
    unread = refused("LexerNoViableAltException: a.b=~/x\n  ^", ["c.d=1", "a.b=~/x"], keys)
    assert "found: a.b=~/x; write" in unread and "two pairs of quotes" in unread
    halves = refused("mismatched input '<EOF>' expecting {...}", ["c.d=1", "a.b=0.1,", "e=2"], keys)
    assert halves == "a.b=0.1,: ends with a comma; leave it out, or write what follows it"
    listed = refused("no viable alternative at input '[b,]'", ["c.d=1", "a.b=[b,]"], keys)
    assert listed == "a.b=[b,]: the list ends with a comma; leave it out, or write what follows it"
    assert "found: a.b=[1; write" in refused("no viable alternative at input", ["c.d=1", "a.b=[1"], keys)
