"""Collecting comparisons as a task."""

from tasks.comparisons.collect import sample_and_label, take_given
from tasks.comparisons.config import ComparisonsConfig
from tasks.engine.caching import stage
from tasks.engine.errors import DataError
from tasks.engine.stage import Metrics, Workshop
from tasks.language.models import load_policy
from tasks.records.comparison_sets import write_comparisons
from tasks.records.data import PreparedData
from tasks.sandbox.labelers import Panel
from tasks.sandbox.world import World


@stage("comparisons", cpus=1, gpus=1)
def collect_comparisons(shop: Workshop, config: ComparisonsConfig) -> Metrics:
    """Sample K responses per prompt from the SFT policy and have them ranked, or take the rankings in the data."""
    data = PreparedData(shop.input("data"))
    with shop.progress(1, "set") as bar:
        if config.source == "given":
            collected = take_given(data.comparisons("train"), data.comparisons("valid"), config)
        else:
            if "world" not in shop.inputs:
                raise DataError(
                    "comparisons.source is sample_and_label, which needs the labelers of the embedded world, and the "
                    "data is not the sandbox's; set comparisons.source=given"
                )
            world = World.read(shop.input("world"))
            collected = sample_and_label(
                load_policy(shop.input("sft") / "policy", shop.runtime.device),
                data.tokenizer(),
                data.comparison_prompts("train"),
                data.comparison_prompts("valid"),
                world,
                Panel.of(world, config.seed),
                config,
                shop.runtime,
            )
        bar.update()
    write_comparisons(shop.folder, collected.sets)
    return collected.metrics
