"""What the findings are told: numbers by setting and seed, and what is missing."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from flows.study.config import StudyConfig
from flows.study.points import Point
from flows.study.records import PointRecord
from flows.study.rules import Claim, Judged, PerSeed, Status, judge, seed_interval, verdict
from tasks.results.win_rate import Interval


class Series(NamedTuple):
    """Means over seeds along an axis, with the seeds' own values."""

    label: str
    x: Sequence[float]
    per_seed: Sequence[PerSeed]


def series_of(label: str, x: Sequence[float], per_seed: Sequence[PerSeed], scale: float = 1.0) -> Series:
    """A series of the places that have a value, each value times ``scale``."""
    kept = [(float(place), values) for place, values in zip(x, per_seed, strict=True) if values]
    scaled = [{seed: scale * value for seed, value in values.items()} for _, values in kept]
    return Series(label, [place for place, _ in kept], scaled)


class Trace(NamedTuple):
    """One line without an interval: a seed's curve, or a fitted one."""

    label: str
    """Empty when another line of the same kind has the label."""
    x: list[float]
    y: list[float]
    judge: str
    """gold labeler or reward model: its colour."""
    fitted: bool = False


class Chart(NamedTuple):
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    series: list[Series] = []
    traces: list[Trace] = []
    x_scale: str = "linear"
    """linear, log, or symlog: logarithmic with room for 0."""
    level: tuple[str, float] | None = None
    """A horizontal line: its name and height."""


class StudyFinding(NamedTuple):
    """One question of the study and its answer."""

    key: str
    title: str
    question: str
    paper: str
    """What was published."""
    judged: list[Judged]
    headings: list[str]
    rows: list[list[str]]
    panels: list[Chart]
    missing: list[str]
    """Points without numbers, and other reasons why something could not be measured."""
    notes: list[str]

    @property
    def status(self) -> Status:
        """What the claims say together."""
        return verdict(self.judged)

    @property
    def sentence(self) -> str:
        """The verdict in one plain sentence that says what decided it."""
        count = len(self.judged)
        decisive = {
            "reproduced": "holds",
            "not reproduced": "contradicted",
            "unclear": "open",
            "not measured": "not measured",
        }[self.status]
        names = "; ".join(item.claim.text for item in self.judged if item.judgement == decisive)
        if self.status == "reproduced":
            return f"Reproduced: all {count} claims hold." if count > 1 else "Reproduced: the claim holds."
        if self.status == "not reproduced":
            return f"Not reproduced: the numbers contradict what was published on: {names}."
        if self.status == "unclear":
            return f"Unclear: the interval does not decide on: {names}."
        return f"Not measured: numbers are missing for: {names}." if names else "Not measured: no numbers yet."

    @property
    def claims(self) -> list[str]:
        """Each claim with its interval and what that says."""
        return [claim_in_words(item) for item in self.judged]


WORDS = {
    "holds": "as published",
    "contradicted": "against the published finding",
    "open": "the interval does not decide",
    "not measured": "too few seeds",
}


def claim_in_words(item: Judged) -> str:
    """``text: mean [low, high] unit, expected above threshold: as published.``"""
    claim = item.claim
    wanted = f"expected {claim.side} {claim.scale * claim.threshold:g}"
    if item.interval is None:
        return f"{claim.text}: no value, {wanted}."
    return f"{claim.text}: {shown(item.interval, claim.scale, claim.unit, claim.digits)}, {wanted}: {WORDS[item.judgement]}."


def shown(interval: Interval, scale: float, unit: str = "", digits: int = 2, signed: bool = True) -> str:
    """An interval for readers; a single seed has none."""
    style = f"{'+' if signed else ''}.{digits}f"
    mean, low, high = (
        # Adding 0 turns -0.0 into 0.0.
        format(round(scale * value, digits) + 0.0, style)
        for value in (interval.estimate, interval.low, interval.high)
    )
    ends = "" if interval.high == math.inf else f" [{low}, {high}]"
    return mean + ends + (f" {unit}" if unit else "")


class Results:
    """Records by setting and seed."""

    def __init__(self, config: StudyConfig, points: Sequence[Point], records: Mapping[Point, PointRecord]) -> None:
        self.config = config
        self._points = points
        self._records = records
        self._found: dict[str, dict[int, PointRecord]] = {}
        for point in points:
            record = records.get(point)
            if record is not None and record.error is None:
                self._found.setdefault(point.setting, {})[point.seed] = record

    def records(self, setting: str) -> dict[int, PointRecord]:
        """Seed -> record of a setting; empty when nothing was measured."""
        return self._found.get(setting, {})

    def metric(self, setting: str, name: str) -> dict[int, float]:
        """Seed -> one figure; seeds without it are left out."""
        return {s: record.metrics[name] for s, record in self.records(setting).items() if name in record.metrics}

    def cell(self, values: PerSeed, scale: float = 1.0, digits: int = 2, signed: bool = True) -> str:
        """Mean and interval for a table; a dash without values."""
        if not values:
            return "–"
        interval = seed_interval(list(values.values()), self.config.rules.confidence)
        return shown(interval, scale, digits=digits, signed=signed)

    def judge(self, *claims: Claim) -> list[Judged]:
        """Every claim by the study's rules."""
        rules = self.config.rules
        return [judge(claim, confidence=rules.confidence, fewest_seeds=rules.fewest_seeds) for claim in claims]

    def missing(self, settings: Sequence[str]) -> list[str]:
        """Points of these settings without numbers, and why."""
        lines = []
        for point in self._points:
            if point.setting in settings and point.seed not in self.records(point.setting):
                record = self._records.get(point)
                lines.append(f"{point.name}: {f'failed ({record.error})' if record else 'not run yet'}")
        return lines
