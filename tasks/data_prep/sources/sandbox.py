"""The embedded world as a source: every record is computed, nothing is read."""

from tasks.data_prep.config import SandboxConfig
from tasks.data_prep.sources.records import SourceRecords
from tasks.records.records import Prompt
from tasks.sandbox.benchmarks import benchmark_items
from tasks.sandbox.corpus import documents
from tasks.sandbox.demonstrations import demonstrations
from tasks.sandbox.groups import asked_by_groups
from tasks.sandbox.prompts import prompts
from tasks.sandbox.safety import toxicity_prompts
from tasks.sandbox.world import World


def read_sandbox(config: SandboxConfig, seed: int) -> SourceRecords:
    """Let the world of ``seed`` write: prompts with distinct texts, held-out entities in test prompts only."""
    world = World.from_seed(seed)
    taken: set[str] = set()

    def ask(count: int, held_out_share: float, stream: int) -> list[Prompt]:
        # Each role has its own stream of random numbers and its own owners; the world's seed is part of both.
        share = config.ambiguous_share
        drawn = prompts(world, count, stream, held_out_share, exclude=taken, ambiguous_share=share)
        taken.update(prompt.text for prompt in drawn)
        return asked_by_groups(drawn, config.labeler_groups)

    test = ask(config.test_prompts, config.held_out_share, 1)
    return SourceRecords(
        demonstrations=demonstrations(world, ask(config.demonstrations, 0.0, 2), 2),
        comparison_prompts=ask(config.comparison_prompts, 0.0, 3),
        rl_prompts=ask(config.rl_prompts, 0.0, 4),
        documents=documents(world, config.documents, 5),
        test_prompts=test,
        benchmarks=benchmark_items(world, config.benchmark_items_per_task, 6),
        toxicity_prompts=toxicity_prompts(world, config.toxicity_prompts, 7),
        world=world,
    )
