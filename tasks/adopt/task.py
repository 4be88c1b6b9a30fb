"""Adoption as a task."""

from collections.abc import Mapping
from pathlib import Path

from tasks.adopt.config import AdoptJob
from tasks.engine.artifacts import ArtifactRef
from tasks.engine.caching import stage_task
from tasks.engine.context import StageContext
from tasks.engine.stage import Workshop, run_stage
from tasks.language.models import ScalarModel, load_policy, load_tokenizer, save_policy


@stage_task("adopted model")
def adopt_model(stage: str, config: AdoptJob, context: StageContext, inputs: dict[str, ArtifactRef]) -> ArtifactRef:
    """Load a model folder and save it in the layout of our own artifacts; code and pickles in it are not run."""

    def story(shop: Workshop) -> Mapping[str, float]:
        if config.kind == "model":
            ScalarModel.load(Path(config.folder).expanduser()).save(shop.folder / "model")
            return {}
        model = load_policy(config.folder, "cpu")
        save_policy(model, load_tokenizer(config.folder), shop.folder / "policy")
        return {"model/parameters": float(sum(weight.numel() for weight in model.parameters()))}

    return run_stage(stage, config, context, inputs, story, package="tasks.adopt")
