"""Data preparation as a task."""

from tasks.data_prep.job import DataPrepJob
from tasks.data_prep.prepare import prepare
from tasks.engine.caching import stage
from tasks.engine.stage import Metrics, Workshop


@stage("data preparation")
def prepare_data(shop: Workshop, config: DataPrepJob) -> Metrics:
    """Read, clean, split and audit the data; train or adopt the tokenizer."""
    with shop.progress(1, "source") as bar:
        metrics = prepare(config.data_prep, config.model, shop.folder, config.documents_for)
        bar.update()
    shop.log.file(shop.folder / "audit.json")
    for file in sorted(shop.folder.glob("*/*.arrow")):
        name = f"{file.parent.name}/{file.stem}"
        shop.uses(file, name, int(metrics.get(name, 0)), "prepared")
    return metrics
