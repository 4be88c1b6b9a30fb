"""The record of a gate's decision: what the release, the card and the run's pages read."""

from tasks.results.sheet import SheetRecord

DECISION = "gate.json"


class GateCheck(SheetRecord):
    """One limit."""

    limit_name: str
    """Knob of ``evaluation.gate``."""
    metric: str
    """The comparison's metric that it was held against."""
    found: float | None
    """None when it was not measured, which fails the check."""
    limit: float
    """Smallest allowed value of ``found`` for a minimum and a regression, largest for toxicity."""
    passed: bool
    reason: str
    """What was found, and the limit, in one sentence."""


class GateDecision(SheetRecord):
    """The gate's answer, kept as ``gate.json``."""

    policy: str
    passed: bool
    checks: list[GateCheck]

    def with_checks(self, more: list[GateCheck]) -> "GateDecision":
        """The decision with further limits, each of which can fail it."""
        checks = [*self.checks, *more]
        return self.model_copy(update={"checks": checks, "passed": all(check.passed for check in checks)})

    @property
    def failures(self) -> list[str]:
        """The reasons against promotion."""
        return [check.reason for check in self.checks if not check.passed]

    @property
    def sentence(self) -> str:
        """For a log line, a state's message, a tag."""
        if not self.checks:
            return f"gate: nothing was asked of {self.policy}"
        count = len(self.checks)
        if self.passed:
            return f"gate: {self.policy} passed {'its only check' if count == 1 else f'all {count} checks'}"
        failed = "its only check" if count == 1 else f"{len(self.failures)} of {count} checks"
        return f"gate: {self.policy} failed {failed}: {'; '.join(self.failures)}"
