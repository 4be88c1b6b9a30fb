"""The data's files and rows: what is read, what gets lost and why, what is in two splits, how long it is."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from flows.ask.doctor.finding import found
from flows.ask.doctor.patient import Patient
from flows.ask.doctor.sample import FEWEST, share
from flows.misspelt import did_you_mean
from flows.run.data_account import accounts
from tasks.data_prep.deduplicate import normalise
from tasks.data_prep.enough import require_documents, require_enough
from tasks.data_prep.lengths import responses_of
from tasks.data_prep.pii import pii_rules
from tasks.data_prep.rules import WORTH_A_LINE, WORTH_A_WARNING, sentence
from tasks.data_prep.sources.files.kinds import kind_of_file, whole_datasets
from tasks.data_prep.sources.folder import NO_ROLES, matches
from tasks.data_prep.split import prompt_of
from tasks.engine.findings import Finding
from tasks.engine.inputs import files_below
from tasks.records.records import turns_of
from tasks.records.repeats import repeated

KEY = "data_prep.folder"
LEAKED_WORDS = 8
"""Words of a benchmark's question that a training text must hold for a leak; ours, GPT-3 took 13 of long documents."""
LONGER_PROMPTS = 2.0
UNUSED_ROOM = 4.0
"""Times the longest text that a limit may be before it is worth a notice."""


def unclaimed_files(patient: Patient) -> Iterator[Finding]:
    """A data file that no pattern names is not read; a slip in its name is the usual reason."""
    data = patient.config.data_prep
    root = Path(data.folder or "").expanduser()
    if data.files is None or not data.folder or not root.is_dir():
        return
    patterns = data.files.model_dump(exclude=NO_ROLES)
    claimed = [pattern for names in patterns.values() for pattern in [*names, *data.files.exclude]]
    for name, path in whole_datasets(files_below(root)).items():
        kind = kind_of_file(path) or kind_of_file(path.with_name(path.name.lower()))  # .JSONL is a slip in a name, too
        if kind is None or any(matches(name, pattern) for pattern in claimed):
            continue
        if any(matches(name.rpartition("/")[2], pattern) for pattern in data.files.exclude):
            continue
        stem = name.rpartition("/")[2].split(".")[0]
        meant = did_you_mean(stem, [pattern.rstrip("*") for names in patterns.values() for pattern in names])
        yield found(
            "warning",
            f"{data.folder}/{name}",
            "a data file that no pattern of data_prep.files names",
            "one role for each file",
            f"rename it, or name it in data_prep.files or data_prep.files.exclude{meant}",
        )


def empty_files(patient: Patient) -> Iterator[Finding]:
    """A file without rows."""
    for name, rows in patient.sample.files.items() if patient.sample else ():
        if not rows:
            yield found("warning", name, "a file without rows", "some", "fill it, or take it away")


def readable(patient: Patient) -> Iterator[Finding]:
    """Notices of reading: what was left alone and why.

    Raises:
        DataError: a row that cannot be used.
    """
    if patient.sample:
        yield from (Finding("notice", KEY, notice) for notice in patient.sample.source.notices)


def enough(patient: Patient) -> Iterator[Finding]:
    """Every role has rows to train on and to validate with.

    Raises:
        DataError: one has not.
    """
    sample, config = patient.sample, patient.config
    if sample:
        require_enough(config.data_prep, sample.numbers, sample.documents, sample.cleaner.rows, sample.shelf)
        require_documents(sample.documents, sample.cleaner.rows, config.documents_for)
    yield from ()


def losses(patient: Patient) -> Iterator[Finding]:
    """What each rule takes of a role; a quarter of it is a warning."""
    if patient.sample is None:
        return
    rows = [row.to_json() for row in patient.sample.cleaner.rows.values()]
    for role, account in accounts(rows).items():
        much = account.lost > WORTH_A_WARNING * account.read
        for rule, count in account.dropped.most_common():
            if count > WORTH_A_LINE * account.read:
                severity = "warning" if much and count == max(account.dropped.values()) else "notice"
                text = sentence(rule, count, account.read, role, account.examples.get(rule, ""))
                yield Finding("warning" if severity == "warning" else "notice", KEY, text)


def personal(patient: Patient) -> Iterator[Finding]:
    """Personal data: what is dropped, by rule, or what stays where nothing is dropped."""
    sample, drops = patient.sample, patient.config.data_prep.drop_pii
    if sample is None:
        return
    rules = Counter(sample.cleaner.pii)
    if not drops:
        rows = [*sample.table["demonstrations", "train"], *sample.table["comparisons", "train"]]
        rules = Counter(rule for row in rows for rule in pii_rules([prompt_of(row).text, *responses_of(row)]))
    counts = ", ".join(f"{rule} {count}" for rule, count in rules.most_common())
    if counts and drops:
        yield Finding("notice", KEY, f"rows with personal data are dropped from training, by rule: {counts}")
    elif counts:
        yield found(
            "warning",
            "data_prep.drop_pii",
            f"false, and personal data in training rows ({counts})",
            "none",
            "set data_prep.drop_pii=true, or take them out",
        )


def leaks(patient: Patient) -> Iterator[Finding]:
    """Test prompts that ask what a training prompt asks, behind another opening."""
    sample = patient.sample
    if sample is None:
        return
    test = [prompt_of(row).text for row in sample.table["test_prompts", "test"]]
    known = [prompt_of(row).text for (_, split), rows in sample.table.items() if split == "train" for row in rows]
    again = sum(repeated(test, known)) if test else 0
    if share(again, test) > WORTH_A_LINE:
        yield found(
            "warning",
            "test_prompts",
            f"{again} of {len(test)} test prompts that repeat a training prompt behind another opening",
            "prompts that training never saw",
            "give related prompts one owner_id, so that they share a split; figures on the others are reported apart",
        )


def benchmark_leaks(patient: Patient) -> Iterator[Finding]:
    """Benchmark questions inside training texts."""
    sample = patient.sample
    if sample is None or not sample.source.benchmarks:
        return
    texts = sample.texts + [f"{row.prompt.text} {row.response}" for row in sample.demonstrations]
    everything = "\n".join(map(normalise, texts))
    asked = [(item.task, normalise(_question(item.context))) for item in sample.source.benchmarks]
    seen = Counter(task for task, text in asked if len(text.split()) >= LEAKED_WORDS and text in everything)
    for task, count in seen.items():
        yield found(
            "warning",
            f"benchmark {task}",
            f"{count} questions inside training texts",
            "none",
            "remove those texts, or do not believe the figure",
        )


def _question(context: str) -> str:
    """The longest line: the question, or the passage that it is about."""
    return max(context.splitlines(), key=len).removeprefix("Question: ")


def lengths(patient: Patient) -> Iterator[Finding]:
    """Limits and lengths that do not belong together."""
    sample, data = patient.sample, patient.config.data_prep
    if sample is None:
        return
    words = {
        role: median(sum(len(turn.content.split()) for turn in turns_of(prompt_of(row))) for row in rows)
        for (role, split), rows in sample.table.items()
        if split == "train" and len(rows) >= FEWEST
    }
    if {"rl_prompts", "comparisons"} <= words.keys():
        asked, known = words["rl_prompts"], words["comparisons"]
        if max(asked, known) > LONGER_PROMPTS * min(asked, known):
            yield found(
                "warning",
                "rl_prompts",
                f"prompts of {asked:g} words (median), and rankings whose prompts have {known:g}",
                "prompts of one kind: a reward model is right about what it was trained on",
                "rank responses to such prompts too",
            )
    longest = max(
        (max(item.responses) for rows in sample.measured.values() for item in rows if item.responses), default=0
    )
    if longest and data.response_tokens > UNUSED_ROOM * longest and sample.whole:
        yield found(
            "notice",
            "data_prep.response_tokens",
            f"{data.response_tokens}, and no response longer than {longest} tokens",
            "a limit that responses come near to",
            f"data_prep.response_tokens={2 * longest} makes sampling and memory as much smaller",
        )
