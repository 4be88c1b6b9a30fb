"""The models of a run in MLflow's Models tab: policies with win rates, KL and tax; reward models with their accuracy."""

import logging
from collections.abc import Mapping

from flows.run.pipeline import Pipeline
from flows.run.rounds import of_last_round
from tasks.engine.errors import TrackingAway
from tasks.engine.registry import log_model, runs_of_stages
from tasks.results.judges import JUDGES
from tasks.results.policies import POLICIES

logger = logging.getLogger("plumbline")

ROWS = {name: name for name in POLICIES} | {"pretrain": "base", "sft_selected": "sft"}
"""Stage -> row of the evaluation."""
REWARD_FIGURES = ("valid/accuracy", "valid/accuracy_heldout_labelers", "valid/accuracy_gold", "valid/ece")


def log_models(run: Pipeline, report: Mapping[str, float]) -> None:
    """One logged model a policy and a reward model of the last round; ``report`` holds the figures of the comparison.

    A server that is away costs the tab, with a warning, and not the run.
    """
    uri = run.context.tracking_uri
    try:
        runs = runs_of_stages(uri, run.run_id)
        for name, stage in of_last_round({stage: stage for stage in run.futures}).items():
            if stage not in runs or (name not in ROWS and name.partition("-")[0] != "reward_model"):
                continue
            ref = run.finished(run.futures[stage])
            tags = {"artifact": ref.key, "digest": ref.digest, "pipeline_run": run.run_id}
            if name in ROWS:
                log_model(uri, runs[stage], stage, "policy", policy_figures(report, ROWS[name]), tags)
            else:
                manifest = run.store.manifest(ref.stage, ref.fingerprint)
                found = manifest.metrics if manifest else {}
                figures = {name: found[name] for name in REWARD_FIGURES if name in found}
                log_model(uri, runs[stage], stage, "reward model", figures, tags)
    except TrackingAway as away:
        logger.warning("MLflow's Models tab is left without this run's models: %s", away)


def policy_figures(report: Mapping[str, float], row: str) -> dict[str, float]:
    """Win rate against SFT by each judge, KL to PPO-init, and what alignment cost on benchmarks."""
    wanted = {f"win_rate_{judge}": f"win_rate/{row}/{judge}" for judge in JUDGES}
    wanted |= {"kl": f"kl/{row}", "benchmarks_vs_sft": f"benchmark/{row}/change_vs_sft"}
    wanted |= {"benchmarks_vs_base": f"benchmark/{row}/change_vs_base"}
    return {name: report[key] for name, key in wanted.items() if key in report}
