"""Data preparation as a task."""

from collections.abc import Mapping

from tasks.data_prep.job import DataPrepJob
from tasks.data_prep.prepare import prepare
from tasks.engine.artifacts import ArtifactRef
from tasks.engine.caching import stage_task
from tasks.engine.context import StageContext
from tasks.engine.stage import Workshop, run_stage


@stage_task("data preparation")
def prepare_data(stage: str, config: DataPrepJob, context: StageContext, inputs: dict[str, ArtifactRef]) -> ArtifactRef:
    """Read, clean, split and audit the data; train or adopt the tokenizer."""

    def story(shop: Workshop) -> Mapping[str, float]:
        with shop.progress(1, "source") as bar:
            metrics = prepare(config.data_prep, config.model, shop.folder, config.documents_for)
            bar.update()
        shop.log.file(shop.folder / "audit.json")
        for file in sorted(shop.folder.glob("*/*.arrow")):
            name = f"{file.parent.name}/{file.stem}"
            shop.uses(file, name, int(metrics.get(name, 0)), "prepared")
        return metrics

    return run_stage(stage, config, context, inputs, story, package="tasks.data_prep")
