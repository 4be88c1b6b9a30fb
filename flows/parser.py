"""What the commands without Hydra read from the command line; a mistake is answered with one sentence and exit status 2."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from flows.misspelt import did_you_mean

KINDS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """As argparse's, but for mistakes: what was found, what is expected, and which option or word was probably meant."""

    def add_subparsers(self, **how: Any) -> Any:
        """Each of the commands answers itself for options that it does not have."""
        return super().add_subparsers(parser_class=_Command, **how)

    def error(self, message: str) -> NoReturn:
        """Print a sentence and exit; argparse calls it with its own words."""
        self.exit(2, f"error: {self._sentence(message)}\n")

    def _sentence(self, message: str) -> str:
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            return self._unknown(found[1])
        if found := re.match(r"the following arguments are required: (.+)", message):
            return self._missing(found[1].split(", "))
        if found := re.match(r"ambiguous option: (\S+) could match (.+)", message):
            return f"{found[1]}: found the beginning of several options, expected one of {found[2]}; write it in full"
        if not (found := re.match(r"argument ([^:]+): (.+)", message, re.DOTALL)):
            return message
        name, problem = found.groups()
        if found := re.match(r"invalid choice: (.+?) \(choose from (.+)\)", problem):
            word, known = found[1].strip("'\""), [choice.strip("'\"") for choice in found[2].split(", ")]
            return f"{name}: found {word!r}, expected {either(known)}{did_you_mean(word, known)}"
        if found := re.match(r"invalid (\w+) value: (.+)", problem):
            return f"{name}: found {found[2]}, expected {KINDS.get(found[1], found[1])}"
        if problem == "expected one argument":
            return f"{name}: found nothing behind it, expected a value"
        if found := re.match(r"ignored explicit argument '(.*)'", problem):
            return f"{name}: found the value {found[1]!r}, expected none; write {name} alone"
        return f"{name}: {problem}"

    def _unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"{word}: found behind all that is expected; write options last, `{self.prog} --help` prints what there is"
        options = [name for name in self._option_string_actions if name.startswith("--")]
        return f"{word}: unknown option, {self.prog} has {' '.join(options)}{did_you_mean(word.split('=')[0], options)}"

    def _missing(self, names: Sequence[str]) -> str:
        # argparse names every word that is not there, also those that need not be.
        needed = [action for action in self._actions if action.required and action.nargs not in ("*", "?")]
        missing = [action for action in needed if (action.metavar or action.dest) in names]
        first = missing[0] if missing else None
        expected = f", expected {either(list(first.choices))}" if first and first.choices else ""
        called = " and ".join(str(action.metavar or action.dest) for action in missing) or ", ".join(names)
        return f"{called}: found nothing{expected}; `{self.prog} --help` prints what there is"


def policy_and_tracking(parser: Parser, words: Sequence[str]) -> tuple[str, list[str]]:
    """The policy that ``model=...`` names, and the other ``key=value`` words; a mistake ends the command."""
    keys = [word.partition("=")[0] for word in words]
    for key in keys:
        if keys.count(key) > 1:
            parser.error(f"{key}: found it {keys.count(key)} times, expected it once")
    model = next((word.partition("=")[2] for word in words if word.startswith("model=")), "")
    if not model:
        parser.error("which model? model=FOLDER, model=<MLflow run id> or model=models:/plumbline-policy@champion")
    return model, [word for word in words if not word.startswith("model=")]


class _Command(Parser):
    """One of several commands. Without this, the parser above it would be asked about options that only this one knows."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """All is known, or it is a mistake."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest


def either(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
