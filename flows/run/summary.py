"""What a run says at its end: on the screen, on the Prefect page and in MLflow."""

import json
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from pydantic import BaseModel, ConfigDict

from flows.config import RLHFConfig
from flows.run.costs import cost_table
from flows.run.rounds import without_round
from flows.terminal import console
from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.results.comparison import COMPARISON, REPORT, PolicyComparison
from tasks.results.rounds import ROUNDS, Rounds
from tasks.results.table import BEHAVIOUR, PREFERENCE, markdown_table, policy_table, terminal_table


class StageRecord(BaseModel):
    """One stage of a run."""

    model_config = ConfigDict(frozen=True)

    stage: str
    artifact: str
    """Path below the artifact store."""
    ran: bool
    """False when the artifact was found in the store."""


class Outcome(BaseModel):
    """What a run of the flow leaves behind."""

    model_config = ConfigDict(frozen=True)

    policy: str
    """Folder of the aligned policy: a Hugging Face model with its tokenizer."""
    report: str
    """Folder of the comparison and its page."""
    run_id: str
    """MLflow run of the pipeline."""
    page: str = ""
    """The published page: the report, and what only this run knows."""
    metrics: dict[str, float]
    stages: list[StageRecord]
    rounds: str | None = None
    """Folder of the table over rounds; None in a run of one round."""
    warnings: list[str] = []
    """What the sentinel found during PPO, one sentence each."""
    costs: list[tuple[str, ...]] = []
    """What each trained policy took, under ``costs.HEADINGS``."""
    gate: str = ""
    """What the gate said, in one sentence."""
    release: str | None = None
    """Folder of the policy with its model card; None when the gate failed."""
    version: str | None = None
    """Version of the registered model that the policy became; None when it was not registered."""

    @property
    def comparison(self) -> PolicyComparison:
        """The comparison of all policies."""
        return PolicyComparison.model_validate_json((Path(self.report) / COMPARISON).read_text(encoding="utf-8"))

    @property
    def over_rounds(self) -> Rounds | None:
        """The run's own policy after every round."""
        if self.rounds is None:
            return None
        return Rounds.model_validate_json((Path(self.rounds) / ROUNDS).read_text(encoding="utf-8"))


def outcome_of(
    store: ArtifactStore,
    report: ArtifactRef,
    policy: ArtifactRef,
    data: ArtifactRef,
    stages: list[StageRecord],
    run_id: str,
) -> Outcome:
    """Gather the results and put them on the run's Prefect page."""
    folder = store.open(report)
    audit = json.loads((store.open(data) / "audit.json").read_text(encoding="utf-8"))
    comparison = PolicyComparison.model_validate_json((folder / COMPARISON).read_text(encoding="utf-8"))
    for key, group in (("results", PREFERENCE), ("results-behaviour", BEHAVIOUR)):
        drawn = policy_table(comparison, group)
        cells = [[" ".join(part for part in cell if part) for cell in row.cells] for row in drawn.rows]
        table = [dict(zip(drawn.headings, row, strict=True)) for row in cells]
        create_table_artifact(key=key, table=table, description=comparison.verdict)
    create_markdown_artifact(key="report", markdown=markdown_table(comparison), description=comparison.verdict)
    create_table_artifact(
        key="data-audit",
        table=[_audit_row(row) for row in audit["rows"]],
        description=f"Rows read, dropped by rule, and kept ({audit['source']})",
    )
    ran = [record.stage for record in stages if record.ran]
    lines = [
        f"| {record.stage} | {'ran' if record.ran else 'found in the store'} | `{record.artifact}` |"
        for record in stages
    ]
    create_markdown_artifact(
        key="stages",
        markdown="| stage | | artifact |\n|---|---|---|\n" + "\n".join(lines),
        description=f"{len(ran)} of {len(stages)} stages ran",
    )
    return Outcome(
        policy=str(store.open(policy) / "policy"),
        report=str(folder),
        run_id=run_id,
        metrics=comparison.metrics | headline(comparison.metrics, without_round(policy.stage)),
        stages=stages,
    )


def run_link(mlflow_uri: str | None, experiment_id: str, run_id: str) -> str:
    """Address of a run's page in MLflow."""
    return f"{mlflow_uri or 'http://127.0.0.1:5000'}/#/experiments/{experiment_id}/runs/{run_id}"


def link_pages(mlflow_uri: str | None, experiment_id: str, run_id: str) -> None:
    """Links on the run's Prefect page: to the run in MLflow, and to the report there."""
    place = run_link(mlflow_uri, experiment_id, run_id)
    create_link_artifact(key="mlflow", link=place, link_text="this run in MLflow")
    create_link_artifact(key="page", link=f"{place}/artifacts/{REPORT}", link_text="the page with plots and samples")


def _audit_row(row: dict[str, Any]) -> dict[str, Any]:
    """One role and split of the data audit as flat cells."""
    dropped = ", ".join(f"{rule}: {count}" for rule, count in row["dropped"].items())
    tokens = row["prompt_tokens"] or {"mean": "", "median": ""}
    return {
        "role": row["role"],
        "split": row["split"],
        "read": row["read"],
        "dropped": dropped or "none",
        "kept": row["kept"],
        "owners": row["owners"],
        "prompt tokens, mean": tokens["mean"],
        "median": tokens["median"],
    }


def headline(metrics: dict[str, float], policy: str) -> dict[str, float]:
    """The main figures of the pipeline's policy under names that do not depend on gamma, for comparing runs."""
    families = {
        "win_rate/base/": "policy/win_rate_of_base_",
        "win_rate/prompted/": "policy/win_rate_of_prompted_",
        f"win_rate_vs_start/{policy}/": "policy/win_rate_vs_start_",
        f"win_rate_unseen/{policy}/": "policy/win_rate_unseen_",
        f"win_rate/{policy}/": "policy/win_rate_",
        f"win_rate/{policy}_greedy/": "policy/win_rate_greedy_",
        f"score/{policy}/": "policy/score_",
    }
    names = {
        "test_prompts": "policy/test_prompts",
        f"kl/{policy}": "policy/kl",
        f"benchmark/{policy}/mean": "policy/benchmarks",
        f"benchmark/{policy}/change_vs_sft": "policy/benchmarks_vs_sft",
        f"benchmark/{policy}/change_vs_base": "policy/benchmarks_vs_base",
        f"perplexity_ratio/{policy}": "policy/perplexity_ratio",
        f"truth/{policy}/both": "policy/true_and_informative",
        f"length/{policy}": "policy/length",
    }
    found = {short: metrics[name] for name, short in names.items() if name in metrics}
    for start, short in families.items():  # one name for each judge there is
        found |= {short + name.removeprefix(start): value for name, value in metrics.items() if name.startswith(start)}
    return found


def say_goodbye(outcome: Outcome, config: RLHFConfig) -> None:
    """Print the table, what ran, and where everything is."""
    screen = console()
    screen.print()
    screen.print(outcome.comparison.verdict, style="bold", soft_wrap=True, highlight=False)
    screen.print(terminal_table(outcome.comparison))
    if len(outcome.costs) > 1:
        screen.print(cost_table(outcome.costs))
    if rounds := outcome.over_rounds:
        screen.print()
        screen.print(rounds.terminal())
    ran = [record.stage for record in outcome.stages if record.ran]
    if ran:
        screen.print(f"{len(ran)} of {len(outcome.stages)} stages ran: {', '.join(ran)}", soft_wrap=True)
    else:
        screen.print(f"0 of {len(outcome.stages)} stages ran: everything was found in the store")
    screen.print(f"policy   {outcome.policy}", soft_wrap=True)
    for warning in outcome.warnings:
        screen.print(f"warning  {warning}", soft_wrap=True)
    if outcome.release is not None:
        screen.print(outcome.gate, soft_wrap=True)
        name = config.evaluation.gate.model_name
        version = f"     {name} version {outcome.version}, {config.evaluation.gate.alias}" if outcome.version else ""
        screen.print(f"release  {outcome.release}{version}", soft_wrap=True)
    screen.print(f"report   {outcome.page}", soft_wrap=True)
    screen.print("pages    python -m flows.pages prefect     python -m flows.pages mlflow", soft_wrap=True)
