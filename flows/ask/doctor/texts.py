"""What is written in the rows: responses that are not responses, damaged letters, one answer to everything."""

import re
from collections import Counter
from collections.abc import Iterator

from flows.ask.doctor.finding import found
from flows.ask.doctor.patient import Patient
from flows.ask.doctor.sample import FEWEST, DataSample, share, typed
from tasks.data_prep.deduplicate import normalise
from tasks.engine.findings import Finding

WORTH_A_WARNING = 0.1
"""Share of the responses; ours."""
NEXT_TURN = re.compile(r"\n\s*(?:human|user|question|q|### ?(?:instruction|human|user))\s*:", re.IGNORECASE)
DAMAGED = re.compile("\ufffd|Ã[\u0080-\u00bf]|â€[™œ\u009d“”˜¦]|Â[\u00a0-\u00bf]")
"""UTF-8 that was read as Latin-1 or Windows-1252 and written again, or could not be read."""


def _responses(sample: DataSample) -> dict[str, list[tuple[str, str]]]:
    """Role -> prompt as typed and response, of training."""
    found = {
        "demonstrations": [(typed(row), row.response) for row in sample.demonstrations],
        "comparisons": [(typed(row), text) for row in sample.comparisons for text in row.completions],
    }
    return {role: rows for role, rows in found.items() if len(rows) >= FEWEST}


def prompt_in_response(patient: Patient) -> Iterator[Finding]:
    """Responses that begin with their own prompt: whole conversations in the place of answers."""
    for role, rows in _responses(patient.sample).items() if patient.sample else ():
        count = sum(len(asked.split()) > 1 and text.strip().startswith(asked.strip()) for asked, text in rows)
        if share(count, rows) > WORTH_A_WARNING:
            yield found(
                "warning",
                role,
                f"{count} of {len(rows)} responses that begin with their own prompt",
                "the answer alone",
                "cut the prompt off; in rows without a prompt field, chosen and rejected may be whole conversations",
            )


def next_turn_in_response(patient: Patient) -> Iterator[Finding]:
    """Responses that go on with the next request: a policy learns to talk to itself."""
    for role, rows in _responses(patient.sample).items() if patient.sample else ():
        count = sum(bool(NEXT_TURN.search(text)) for _, text in rows)
        if share(count, rows) > WORTH_A_WARNING / 2:
            yield found(
                "warning",
                role,
                f"{count} of {len(rows)} responses that go on with a turn of the user ('\\nHuman:' and the like)",
                "one answer each",
                "cut them there, or give the rows as messages",
            )


def same_response(patient: Patient) -> Iterator[Finding]:
    """One answer to many prompts."""
    rows = _responses(patient.sample).get("demonstrations", []) if patient.sample else []
    most = Counter(normalise(text) for _, text in rows).most_common(1)
    if most and share(most[0][1], rows) > WORTH_A_WARNING:
        yield found(
            "warning",
            "demonstrations",
            f"one and the same response in {most[0][1]} of {len(rows)} rows",
            "answers to their prompts",
            "keep a few of them: SFT learns to give it to everybody",
        )


def damaged(patient: Patient) -> Iterator[Finding]:
    """Letters that were written in one encoding and read in another."""
    for role, rows in _responses(patient.sample).items() if patient.sample else ():
        count = sum(bool(DAMAGED.search(f"{asked} {text}")) for asked, text in rows)
        if share(count, rows) > 0.01:
            yield found(
                "warning",
                role,
                f"damaged letters (such as Ã© or \ufffd) in {count} of {len(rows)} rows",
                "text that was read in its own encoding",
                "export the data again as UTF-8",
            )


def different_prompts(patient: Patient) -> Iterator[Finding]:
    """Prompts that rankings know and PPO does not ask, word for word: one of the two has another layout."""
    sample = patient.sample
    if sample is None or len(sample.rl_prompts) < FEWEST or len(sample.comparisons) < FEWEST:
        return
    ends = {
        role: Counter(text.rstrip().rpartition("\n")[2][-12:] for text in texts)
        for role, texts in {
            "rl_prompts": [typed(prompt) for prompt in sample.rl_prompts],
            "comparisons": [typed(row) for row in sample.comparisons],
        }.items()
    }
    common = {role: counts.most_common(1)[0] for role, counts in ends.items()}
    for role, (cue, count) in common.items():
        other = "comparisons" if role == "rl_prompts" else "rl_prompts"
        if cue.endswith(":") and share(count, ends[role].total()) > 0.9 and ends[other][cue] == 0:
            yield found(
                "warning",
                role,
                f"prompts that end with {cue!r}, which none of {other} does",
                "one layout for all roles",
                "take the cue out of the rows and write it in data_prep.prompt_layout",
            )
