"""One way to write what was found: found, expected, remedy."""

from tasks.engine.findings import Finding, Severity


def found(severity: Severity, where: str, what: str, expected: str, remedy: str) -> Finding:
    """The sentence that every check writes."""
    return Finding(severity, where, f"found {what}, expected {expected}; {remedy}")
