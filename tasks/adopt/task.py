"""Adoption as a task."""

from pathlib import Path

from tasks.adopt.config import AdoptJob
from tasks.engine.stage import Metrics, Workshop
from tasks.language.inspect import make_fit
from tasks.language.models import ScalarModel, load_policy, save_policy
from tasks.language.tokenizer import load_tokenizer


def adopt_model(shop: Workshop, config: AdoptJob) -> Metrics:
    """Load a model folder and save it in the layout of our own artifacts; code and pickles in it are not run."""
    if config.kind == "model":
        ScalarModel.load(Path(config.folder).expanduser()).save(shop.folder / "model")
        return {}
    model, tokenizer = load_policy(config.folder, "cpu"), load_tokenizer(config.folder)
    make_fit(model, tokenizer, config.folder)
    save_policy(model, tokenizer, shop.folder / "policy")
    return {"model/parameters": float(sum(weight.numel() for weight in model.parameters()))}
