"""What Hydra refuses, in one sentence, with the key or choice that was probably meant."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf


def every_key(command: str = "rlhf") -> str:
    """Where the keys of a command's configuration can be read; ``store``, ``doctor`` and others take those of ``rlhf``."""
    return (
        "conf/debate.yaml has every key"
        if command == "debate"
        else f"`python -m flows.{command} --cfg job` prints every key"
    )


def flat_values(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """``ppo.policy_adam.beta1`` and the like, every group included, with what was written there, interpolations as they are."""
    found = {}
    plain: Any = OmegaConf.to_container(values) if isinstance(values, DictConfig) else values
    for key, value in plain.items():
        found[f"{prefix}{key}"] = value
        if isinstance(value, Mapping):
            found |= flat_values(value, f"{prefix}{key}.")
    return found


def missing_keys(values: DictConfig) -> list[str]:
    """Keys without a value, in full; those that are only computed from one are not among them."""

    def below(part: Any, path: str) -> Iterable[str]:
        if part == "???":
            yield path
        elif isinstance(part, dict):
            for name, inner in part.items():
                yield from below(inner, f"{path}.{name}" if path else str(name))

    return sorted(below(OmegaConf.to_container(values, resolve=False), ""))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean ppo.beta?``, or nothing when no known word is near; the same last part elsewhere is near, too."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.75)
    last = word.rpartition(".")[2]
    elsewhere = [key for key in known if key.rpartition(".")[2] == last]
    found = (near or elsewhere)[:2]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def refused(message: str, overrides: Iterable[str], known: Iterable[str], command: str = "rlhf") -> str:
    """One sentence instead of Hydra's paragraphs.

    Args:
        message: Hydra's.
        overrides: what was typed.
        known: every key there is, groups included.
        command: whose configuration it is.
    """
    typed, known = " ".join(overrides), list(known)
    for item in overrides:
        group, _, value = item.lstrip("+~").partition("=")
        if (
            any(key.startswith(f"{group}.") for key in known)
            and "." not in group
            and not re.fullmatch(r"(?!(true|false|null)$)\[?[a-zA-Z][\w/,.-]*\]?", value)
        ):
            return f"{item[:100]}: {group} is a group; choose one of its files, {group}=NAME, or a value in it, {group}.KEY=..."
        if re.fullmatch(r"[\w./-]+", item) and "missing EQUAL" in message:
            meant = "; give it a value." if item in known else did_you_mean(item, known) or ";"
            return f"{item[:100]}: found a word alone, expected KEY=VALUE{meant} {every_key(command)}"
    if key := re.search(r"(?:Could not override|Could not delete from config\.) '([^']+)'", message):
        parent = key[1].rpartition(".")[0]
        group = parent.rpartition(".")[2]
        if {parent, group} <= set(known) and not any(other.startswith(f"{parent}.") for other in known):
            return f"{key[1]}: {parent} has no values as it is; choose {group}=NAME with it, one of the files of conf/{group}"
        return f"{key[1]}: unknown key{did_you_mean(key[1], known) or ';'} {every_key(command)}"
    if choice := re.search(r"Could not find '([^']+)/([^'/]+)'", message):
        group, name = choice.groups()
        there = re.findall(r"^\t([\w/.-]+)$", message, re.MULTILINE)
        return f"{group}={name}: no such choice, there are {', '.join(there)}{did_you_mean(name, there)}"
    if taken := re.search(r"Could not append to config\. An item is already at '([^']+)'", message):
        return f"+{taken[1]}: found a + before a key that is there, expected it before new ones only; write {taken[1]}=VALUE"
    first = next((line for line in message.splitlines() if line.strip()), "").rstrip(".")
    if "Ambiguous value" in message:
        return f"{first}: write a list as [value1,value2], or give -m to run one value after the other"
    found = next((item for item in overrides if (item and item in message) or not _readable(item)), typed)
    if re.fullmatch(r"[\w.+~/@:-]+=[^\[{'\"]*,", found):
        return f"{found[:100]}: ends with a comma; leave it out, or write what follows it"
    if re.fullmatch(r"[\w.+~/@:-]+=\[[^\[{'\"]*,\]", found):
        return f"{found[:100]}: the list ends with a comma; leave it out, or write what follows it"
    return (
        f"cannot read the overrides ({first}), found: {found}; write key=value, and where the value holds spaces or signs, "
        "two pairs of quotes, of which the shell takes one: \"key='the value'\""
    )


def _readable(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True
