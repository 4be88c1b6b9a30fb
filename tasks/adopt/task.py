"""Adoption as a task."""

from pathlib import Path

from tasks.adopt.config import AdoptJob
from tasks.engine.caching import stage
from tasks.engine.stage import Metrics, Workshop
from tasks.language.models import ScalarModel, load_policy, load_tokenizer, save_policy


@stage("adopted model")
def adopt_model(shop: Workshop, config: AdoptJob) -> Metrics:
    """Load a model folder and save it in the layout of our own artifacts; code and pickles in it are not run."""
    if config.kind == "model":
        ScalarModel.load(Path(config.folder).expanduser()).save(shop.folder / "model")
        return {}
    model = load_policy(config.folder, "cpu")
    save_policy(model, load_tokenizer(config.folder), shop.folder / "policy")
    return {"model/parameters": float(sum(weight.numel() for weight in model.parameters()))}
