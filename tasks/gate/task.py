"""The gate as a task."""

import json

from tasks.engine.artifacts import write_json
from tasks.engine.caching import stage
from tasks.engine.stage import Metrics, Workshop
from tasks.gate.config import GateConfig
from tasks.gate.decide import decide
from tasks.results.comparison import COMPARISON
from tasks.results.decision import DECISION


@stage("gate")
def check_budget(shop: Workshop, config: GateConfig) -> Metrics:
    """Hold the comparison of all policies against the declared budget; leaves ``gate.json``, passed or not.

    ``shop.about`` is the policy's name.
    """
    metrics = json.loads((shop.input("evaluation") / COMPARISON).read_text(encoding="utf-8"))["metrics"]
    decision = decide(shop.about, metrics, config)
    write_json(shop.folder / DECISION, decision.model_dump(mode="json"))
    shop.log.file(shop.folder / DECISION)
    return {
        "gate/passed": float(decision.passed),
        "gate/checks": float(len(decision.checks)),
        "gate/failed_checks": float(len(decision.failures)),
    }
