"""The sentinel's warnings on the pages of a run: what PPO's stage found, said again when the stage is taken from the store."""

from prefect.artifacts import create_markdown_artifact

from flows.run.pipeline import Pipeline
from flows.run.rounds import of_every_round
from tasks.engine.tracking import open_run
from tasks.ppo.watch_report import WatchReport

SENTINEL = "sentinel.json"


def publish_warnings(run: Pipeline, stages: list[str]) -> list[str]:
    """Put the watch over each PPO run on the Prefect page, and its warnings into the pipeline's tags.

    Args:
        run: every stage is done.
        stages: names of the PPO stages; each is told about in every round.

    Returns:
        One sentence for each warning.
    """
    said = []
    for stage, future in of_every_round(run.futures, stages).items():
        folder = run.store.open(future.result())
        report = WatchReport.model_validate_json((folder / SENTINEL).read_text(encoding="utf-8"))
        found = [f"{stage}, iteration {item.first_iteration}: {item.reason}" for item in report.warnings]
        create_markdown_artifact(
            key=f"sentinel-{stage.replace('_', '-')}", markdown=_page(report), description=_summary(report)
        )
        tags = {f"sentinel.{stage}.{item.rule}": item.reason for item in report.warnings}
        open_run(run.context.tracking_uri, run.run_id).tags(tags)
        said += found + [f"{stage}, iteration {item.iteration}: brake: {item.told}" for item in report.interventions]
    return said


def _summary(report: WatchReport) -> str:
    judges = " and ".join(report.judges) or "no held-out judge"
    text = f"{len(report.warnings)} of {len(report.rules)} rules warned over {report.iterations} iterations, watched by {judges}"
    if report.stopped_early:
        text += f"; stopped early, {report.planned_iterations} were planned"
    if report.interventions:
        text += f"; the brake held {len(report.interventions)} times"
    if report.selection != "last":
        text += f"; the weights are those of iteration {report.selected_iteration}, chosen by {report.selection}"
    return text


def _page(report: WatchReport) -> str:
    warned = {item.rule: item for item in report.warnings}
    lines = ["| rule | iterations | found | limit | |", "|---|---|---|---|---|"]
    for rule in report.rules:
        if rule in warned:
            item = warned[rule]
            when = f"{item.first_iteration} to {item.last_iteration}"
            lines.append(f"| **{rule}** | {when} | {item.found:.3g} | {item.limit:.3g} | {item.reason} |")
        else:
            lines.append(f"| {rule} | | | | calm |")
    lines += [
        f"| **brake: {item.rule}** | {item.iteration} | {item.found:.3g} | {item.limit:.3g} | {item.told} |"
        for item in report.interventions
    ]
    return "\n".join(lines)
