"""The gate as a task."""

import json
from collections.abc import Mapping

from tasks.engine.artifacts import ArtifactRef, write_json
from tasks.engine.caching import stage_task
from tasks.engine.context import StageContext
from tasks.engine.stage import Workshop, run_stage
from tasks.gate.config import GateConfig
from tasks.gate.decide import decide

COMPARISON = "comparison.json"  # what the evaluation stage calls it
DECISION = "gate.json"


@stage_task("gate")
def check_budget(stage: str, config: GateConfig, context: StageContext, inputs: dict[str, ArtifactRef]) -> ArtifactRef:
    """Hold the comparison of all policies against the declared budget; leaves ``gate.json``, passed or not.

    The policy is what follows the dash in ``stage``: ``gate-ppo_ptx``.
    """

    def story(shop: Workshop) -> Mapping[str, float]:
        metrics = json.loads((shop.input("evaluation") / COMPARISON).read_text(encoding="utf-8"))["metrics"]
        decision = decide(stage.partition("-")[2], metrics, config)
        write_json(shop.folder / DECISION, decision.model_dump(mode="json"))
        shop.log.file(shop.folder / DECISION)
        return {
            "gate/passed": float(decision.passed),
            "gate/checks": float(len(decision.checks)),
            "gate/failed_checks": float(len(decision.failures)),
        }

    return run_stage(stage, config, context, inputs, story, package="tasks.gate")
