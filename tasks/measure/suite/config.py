"""Which benchmarks the evaluation harness runs, on which files, with how many examples."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from tasks.engine.config import Config
from tasks.engine.inputs import folder_fields

SUITE = "instructgpt"
"""The name that stands for all task files of this package."""
TASK_FILES = Path(__file__).parent / "instructgpt"


class SuiteConfig(Config):
    """Benchmarks run by lm-evaluation-harness, beside those that came with the data."""

    tasks: list[str]
    """instructgpt for the paper's tasks, instructgpt_drop and the like for one of them, and names that lm-evaluation-harness
    knows; empty skips the harness."""
    folder: str | None
    """Folder of the JSONL files that the tasks of instructgpt read; files that are not there are left out."""
    shots: Literal["few", "zero"]
    """few: as many examples before each question as the paper (rows of the file that are then not asked); zero: none.
    Fixed parts of a layout, such as TruthfulQA's six pairs, always stand. Other tasks keep their own number."""
    limit: int | None = Field(gt=0)
    """At most this many items a task, in file order; null takes all."""

    @property
    def of_suite(self) -> list[str]:
        """The names that mean tasks of this package."""
        return [name for name in self.tasks if name == SUITE or name.startswith(f"{SUITE}_")]

    @property
    def of_harness(self) -> list[str]:
        """The names that mean tasks which the harness brings."""
        return [name for name in self.tasks if name not in self.of_suite]

    @model_validator(mode="after")
    def _reads_what_it_needs(self) -> "SuiteConfig":
        if self.of_suite and self.folder is None:
            raise ValueError(
                f"tasks names {self.of_suite[0]}, so folder must name the folder of its JSONL files; found null"
            )
        if not self.of_suite and self.folder is not None:
            raise ValueError(
                f"folder is {self.folder!r}, which only the task {SUITE} reads; add it to tasks or set null"
            )
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks is {self.tasks}; name each once")
        return self

    def fingerprint_fields(self) -> dict[str, Any]:
        """Task files and data count by their content."""
        fields = super().fingerprint_fields()
        if self.folder is not None:
            fields["folder"] = folder_fields(self.folder)
        if self.of_suite:
            fields["task_files"] = folder_fields(str(TASK_FILES))
        return fields
