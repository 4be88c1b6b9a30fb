"""Data preparation as a task."""

import logging
import time

from tasks.data_prep.job import DataPrepJob
from tasks.data_prep.prepare import prepare
from tasks.engine.stage import Metrics, Workshop

logger = logging.getLogger("plumbline")


def prepare_data(shop: Workshop, config: DataPrepJob) -> Metrics:
    """Read, clean, split and audit the data; train or adopt the tokenizer."""
    processes, began = shop.runtime.processes, time.monotonic()
    metrics = prepare(
        config.data_prep,
        config.model,
        shop.folder,
        config.documents_for,
        processes=processes,
        progress=shop.progress,
    )
    rows, seconds = metrics["rows/read"], time.monotonic() - began
    shop.log.metrics({"stage/rows_per_second": rows / seconds})
    logger.info("%s: %s rows in %.1f s, %s rows/s", shop.stage, f"{rows:,.0f}", seconds, f"{rows / seconds:,.0f}")
    shop.log.file(shop.folder / "audit.json")
    for file in sorted(shop.folder.glob("*/*.arrow")):
        name = f"{file.parent.name}/{file.stem}"
        shop.uses(file, name, int(metrics.get(name, 0)), "prepared")
    return metrics
