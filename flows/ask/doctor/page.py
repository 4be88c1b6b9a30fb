"""The doctor's page: one line an area, then what was found, then the data, the labels, the memory and the time in numbers."""

from collections import Counter
from collections.abc import Iterator, Mapping
from statistics import median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.ask.arithmetic.memory import GIB
from flows.ask.doctor import labels
from flows.ask.doctor.machine import PROGRAM, device_memory
from flows.ask.doctor.patient import Patient
from flows.ask.doctor.sample import ROWS, DataSample
from flows.ask.timing.page import longest, stages_of
from flows.ask.timing.page import show as show_time
from flows.ask.timing.rates import guessed
from flows.ask.timing.tokens import lengths_of
from flows.run.data_account import account_rows
from tasks.data_prep.lengths import Measured
from tasks.engine.errors import PlumblineError
from tasks.engine.findings import Finding

STYLES = {"error": "bold red", "warning": "yellow", "notice": "dim"}
HIGH = 0.95
LONGEST = 3


def show(screen: Console, patient: Patient, examined: Mapping[str, list[Finding]]) -> None:
    """Print the page."""
    areas = [Text.assemble(area, " ", _mark(findings)) for area, findings in examined.items()]
    screen.print(Text(" ").join(areas), soft_wrap=True)
    everything = [finding for findings in examined.values() for finding in findings]
    for severity, style in STYLES.items():
        for finding in everything:
            if finding.severity == severity:
                screen.print(severity, style=style, end=" ")
                screen.print(str(finding), soft_wrap=True, highlight=False)
    if not any(finding.severity == "error" for finding in everything):
        for part in numbers(patient):
            screen.print(part, highlight=False)


def numbers(patient: Patient) -> Iterator[Table | str]:
    """Data, labels, memory."""
    try:
        sample = patient.sample
        if sample is not None:
            yield data_table(sample)
            yield label_line(labels.count(labels.trained_on(patient)))
        yield memory_line(patient)
        yield time_line(patient)
    except PlumblineError as error:
        yield f"no more numbers: {error}"


def data_table(sample: DataSample) -> Table:
    """Role, read, kept, reasons, and tokens: the median, and what 95 of 100 stay below."""
    about = "" if sample.whole else f": the first {ROWS:,} rows of each file"
    table = Table(title=f"Data{about}", title_justify="left", title_style="bold", pad_edge=False)
    for heading, justify in (("role", "left"), ("read", "right"), ("kept", "right"), ("left out by", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for heading in ("prompt tokens: half, 95 %, all", "response tokens"):
        table.add_column(heading, justify="right")
    for cells in account_rows(row.to_json() for row in sample.cleaner.rows.values()):
        measured = sample.measured.get(cells[0], [])
        table.add_row(*cells, _spread([item.prompt for item in measured]), _spread(_responses(measured)))
    return table


def label_line(found: labels.Labels) -> str:
    """How many pairs there are, and what tells winners from losers."""
    if not found.rankings:
        return "Labels: none to read"
    return (
        f"Labels: {found.rankings:,} rankings, {found.pairs:,} ordered pairs, {found.ties:,} ties; the longer response wins "
        f"{found.longer_share:.0%}"
    )


def memory_line(patient: Patient) -> str:
    """The largest stage beside what there is."""
    config = patient.config
    largest = max(patient.stage_memory, key=lambda stage: stage.peak)
    total, free = device_memory(config.runtime.device)
    needed = largest.peak + (0 if patient.on_gpu else PROGRAM)
    there = f"{total / GIB:.1f} GiB here, {free / GIB:.1f} free"
    return f"Memory: {largest.stage} needs the most, about {needed / GIB:.1f} GiB; {there}"


def time_line(patient: Patient) -> str:
    """The whole run and its longest stages, from the speed of a matrix product."""
    config = patient.config
    if config.runtime.device.startswith("cuda") and not patient.on_gpu:
        return "Time: not estimated without the GPU"
    shapes = patient.shapes
    rates = guessed(shapes.policy.parameters, config.runtime)
    lengths = lengths_of(patient)
    stages, most = (stages_of(patient, shapes, each, rates) for each in (lengths, longest(config, lengths)))
    seconds: Counter[str] = Counter()
    for stage in stages:
        seconds[stage.group] += stage.seconds  # type: ignore[assignment]
    largest = ", ".join(f"{group} {show_time(took)}" for group, took in seconds.most_common(LONGEST))
    whole, at_most = (show_time(max(stage.ends for stage in each)) for each in (stages, most))
    return f"Time: roughly {whole}, at most {at_most}; {largest}. `python -m flows.rlhf ... --dry-run` measures it"


def _mark(findings: list[Finding]) -> tuple[str, str]:
    """In words, and their style."""
    counts = {severity: sum(found.severity == severity for found in findings) for severity in ("error", "warning")}
    if counts["error"]:
        return f"{counts['error']} wrong", "bold red"
    return (f"{counts['warning']} doubtful", "yellow") if counts["warning"] else ("fine", "green")


def _responses(measured: list[Measured]) -> list[int]:
    return [tokens for item in measured for tokens in item.responses]


def _spread(tokens: list[int]) -> str:
    if not tokens:
        return ""
    ordered = sorted(tokens)
    return f"{median(ordered):g}, {ordered[min(len(ordered) - 1, int(HIGH * len(ordered)))]}, {ordered[-1]}"
