"""The gate as a task."""

import json

from tasks.engine.artifacts import write_json
from tasks.engine.stage import Metrics, Workshop
from tasks.gate.champion import against_champion
from tasks.gate.config import GateConfig
from tasks.gate.decide import decide
from tasks.results.comparison import COMPARISON
from tasks.results.decision import DECISION
from tasks.results.sheet import read_sheet


def check_budget(shop: Workshop, config: GateConfig) -> Metrics:
    """Hold the comparison of all policies against the declared budget; leaves ``gate.json``, passed or not.

    ``shop.about`` is the policy's name. With the inputs ``candidate`` and ``champion``, the sheets of both, it is also compared
    with the champion.
    """
    comparison = json.loads((shop.input("evaluation") / COMPARISON).read_text(encoding="utf-8"))
    decision = decide(shop.about, comparison["metrics"], config)
    if "champion" in shop.inputs and config.champion_margin is not None:
        checks = against_champion(
            read_sheet(shop.input("candidate")),
            read_sheet(shop.input("champion")),
            config.judge,
            list(map(str, config.decodings)),
            config.champion_margin,
            comparison["confidence"],
        )
        decision = decision.with_checks(checks)
    write_json(shop.folder / DECISION, decision.model_dump(mode="json"))
    shop.log.file(shop.folder / DECISION)
    return {
        "gate/passed": float(decision.passed),
        "gate/checks": float(len(decision.checks)),
        "gate/failed_checks": float(len(decision.failures)),
    }
