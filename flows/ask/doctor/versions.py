"""Whether the installed packages are those that this project asks for."""

import tomllib
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from flows.ask.doctor.finding import found
from flows.ask.doctor.patient import Patient
from flows.process.environment import PROJECT
from tasks.engine.findings import Finding


def pinned(_patient: Patient) -> Iterator[Finding]:
    """Every requirement without which nothing runs."""
    for text in required():
        asked = Requirement(text)
        if asked.marker is not None and not asked.marker.evaluate():
            continue
        try:
            version = metadata.version(asked.name)
        except metadata.PackageNotFoundError:
            version = "none"
        if version == "none" or not asked.specifier.contains(version, prereleases=True):
            yield found(
                "error",
                f"package {asked.name}",
                f"version {version}",
                f"{asked.specifier}" or "one",
                f"run `pip install '{asked.name}{asked.specifier}'`, or install again with -c constraints.txt",
            )


def required() -> list[str]:
    """Of the clone's pyproject.toml, or of the installed distribution."""
    project = PROJECT / "pyproject.toml"
    if project.is_file():
        return list(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"])
    return [text for text in metadata.requires("plumbline") or [] if "extra ==" not in text]
