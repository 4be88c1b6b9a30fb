"""What every source returns."""

from dataclasses import dataclass, field

from tasks.records.records import BenchmarkItem, Comparison, Demonstration, Document, Prompt
from tasks.sandbox.world import World


@dataclass
class SourceRecords:
    """Records as read: checked one by one, not yet cleaned, split or measured. Layouts are applied."""

    demonstrations: list[Demonstration] = field(default_factory=list)
    comparison_prompts: list[Prompt] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    rl_prompts: list[Prompt] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    test_prompts: list[Prompt] = field(default_factory=list)
    benchmarks: list[BenchmarkItem] = field(default_factory=list)
    toxicity_prompts: list[Prompt] = field(default_factory=list)
    world: World | None = None
    notices: list[str] = field(default_factory=list)
    """What was left out, and why; shown in the audit."""
