"""What a look at a configuration, a model or data finds, before anything is trained."""

from typing import Literal, NamedTuple

from tasks.engine.errors import ModelError

Severity = Literal["error", "warning", "notice"]


class Finding(NamedTuple):
    """Something that a user should know; an error stops a run, a warning asks for a decision, a notice informs."""

    severity: Severity
    where: str
    sentence: str
    """What was found, what was expected, and what to do about it."""

    def __str__(self) -> str:
        return f"{self.where}: {self.sentence}" if self.where else self.sentence


def error_from(text: str) -> Finding:
    """The finding of a refusal, whose sentence begins with the place that it is about."""
    where, colon, sentence = text.partition(": ")
    return Finding("error", where, sentence) if colon else Finding("error", "", text)


def refuse(findings: list[Finding]) -> None:
    """Stop on errors, all in one message.

    Raises:
        ModelError: there is one.
    """
    errors = [str(finding) for finding in findings if finding.severity == "error"]
    if errors:
        raise ModelError("\n".join(errors))
