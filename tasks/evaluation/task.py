"""Evaluation as two tasks: measure one policy, then set all of them side by side."""

import json
from collections.abc import Mapping

from tasks.artifacts import ArtifactRef
from tasks.caching import stage_task
from tasks.context import StageContext
from tasks.data import PreparedData
from tasks.evaluation.benchmarks import Subject
from tasks.evaluation.compare import BASELINE, compare_sheets
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.policy_sheet import Yardsticks
from tasks.evaluation.policy_sheet import evaluate_policy as measure
from tasks.evaluation.report import ReportInputs, write_report
from tasks.evaluation.sheet import read_sheet, write_sheet
from tasks.models import ScalarModel, load_policy
from tasks.stage import Workshop, run_stage

PARTS = 4  # what policy_sheet.evaluate_policy announces
COMPARISON = "comparison.json"
REPORT = "report.html"


@stage_task("evaluation of a policy", cpus=1, gpus=1)
def evaluate_policy(
    stage: str, config: EvaluationConfig, context: StageContext, inputs: dict[str, ArtifactRef]
) -> ArtifactRef:
    """Responses, judges' scores, KL, benchmarks, perplexity, toxicity and truthfulness of one policy.

    The policy's name is what follows the dash in ``stage``; ``evaluation-sft`` measures the baseline.
    """

    def story(shop: Workshop) -> Mapping[str, float]:
        data = PreparedData(shop.input("data"))
        device, name = shop.runtime.device, stage.partition("-")[2]
        subject = Subject(load_policy(shop.input("policy") / "policy", device).eval(), data.tokenizer(), shop.runtime)
        yardsticks = Yardsticks(
            reference=load_policy(shop.input("reference") / "policy", device).eval(),
            reward=ScalarModel.load(shop.input("reward_model") / "model", device).eval(),
        )
        with shop.progress(PARTS, "part") as bar:
            sheet = measure(
                name,
                subject,
                yardsticks,
                data,
                config,
                baseline=name == BASELINE,
                on_progress=lambda part: bar.update(),
            )
        write_sheet(sheet, shop.folder)
        return {"kl": sheet.kl.estimate}

    return run_stage(stage, config, context, inputs, story, package="tasks.evaluation")


@stage_task("comparison of all policies")
def compare_policies(
    stage: str, config: EvaluationConfig, context: StageContext, inputs: dict[str, ArtifactRef]
) -> ArtifactRef:
    """Win rates, alignment tax and safety of every policy against SFT, as numbers and as a page."""

    def story(shop: Workshop) -> Mapping[str, float]:
        sheets = {name: read_sheet(shop.input(name)) for name in inputs if not name.endswith("_policy")}
        curves = {
            name.removesuffix("_policy"): _curve(json.loads((shop.input(name) / "history.json").read_text()))
            for name in inputs
            if name.endswith("_policy")
        }
        comparison = compare_sheets(sheets, config)
        (shop.folder / COMPARISON).write_text(comparison.model_dump_json(indent=1) + "\n")
        digests = {name: ref.digest for name, ref in inputs.items()}
        write_report(
            shop.folder / REPORT, ReportInputs(comparison, sheets, curves, config.fingerprint_fields(), digests), config
        )
        shop.log.file(shop.folder / COMPARISON)
        shop.log.file(shop.folder / REPORT)
        return comparison.metrics

    return run_stage(stage, config, context, inputs, story, package="tasks.evaluation")


def _curve(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """A PPO run's curves under the names that the plots know."""
    return [{"step": row["step"], "kl": row["objective/kl"], "score": row["objective/score"]} for row in history]
