"""Any policy, measured: `python -m flows.evaluate policy=<model folder> data=<MLflow run id>`.

Ours or someone else's: a Hugging Face folder with its own tokenizer. It is measured on the same prompts, by the same judges
and with the same stages as the policies of a pipeline.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from flows.command import answer_early
from flows.evaluate_config import EvaluateConfig, evaluate_command, evaluate_results, parse_evaluate
from flows.process import environment  # first: Prefect reads the environment when it is imported
from flows.process.session import prefect_session, start_ahead
from flows.terminal import console

if __name__ == "__main__":
    answer_early("evaluate", parse_evaluate)
    start_ahead()

# isort: split
import hydra
from omegaconf import DictConfig, OmegaConf
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.futures import PrefectFuture
from pydantic import BaseModel, ConfigDict

from flows.ask.doctor.requirements import (
    check_devices,
    check_judges,
    check_measures,
    check_model_folder,
    check_runner,
)
from flows.process.deadline import DEADLINE, ends_in_time
from flows.process.logs import tame_logs
from flows.run.pipeline import Pipeline
from flows.run.promotion import EXIT_STATUS, GateFailed, read_decision, settle
from flows.run.rounds import data_of, of_last_round
from flows.run.summary import StageRecord, link_pages
from tasks.adopt import adopt_model
from tasks.adopt.config import AdoptJob
from tasks.compare import compare_policies
from tasks.data_prep import prepare_data
from tasks.engine.artifacts import ArtifactRef
from tasks.engine.errors import ArtifactError, ConfigError, ModelError, PlumblineError
from tasks.engine.os_errors import probe
from tasks.engine.registry import artifacts_of, register_model, weights_of
from tasks.engine.tracking import open_run
from tasks.gate import check_budget
from tasks.language.reward_folder import check_other_weights, check_reward_model
from tasks.measure import evaluate_policy
from tasks.results.comparison import COMPARISON, REPORT, PolicyComparison
from tasks.results.table import markdown_table, terminal_table

POLICY, BASELINE = "policy", "sft"
"""Names in the comparison: the baseline takes the place of the SFT policy."""
Input = PrefectFuture[ArtifactRef] | ArtifactRef


class Evaluated(BaseModel):
    """What an evaluation leaves behind."""

    model_config = ConfigDict(frozen=True)

    report: str
    """Folder of the comparison and its page."""
    run_id: str
    """MLflow run of the evaluation."""
    metrics: dict[str, float]
    stages: list[StageRecord]
    gate: str = ""
    """What the gate said, in one sentence."""
    version: str | None = None
    """Version of the registered model; None when the policy was not registered."""

    @property
    def comparison(self) -> PolicyComparison:
        """The policy beside its baseline."""
        return PolicyComparison.model_validate_json((Path(self.report) / COMPARISON).read_text(encoding="utf-8"))


@flow(name="evaluate", flow_run_name="{config.tracking.run_name}", log_prints=False)
def evaluate(config: EvaluateConfig) -> Evaluated:
    """Measure a policy beside a baseline.

    Args:
        config: policy, data, judges, budget.

    Returns:
        Where report and tracked run lie, and the metrics.

    Raises:
        GateFailed: the policy broke its budget; the flow's state has the same name, and the results are complete.
        PlumblineError: something the user can put right.
    """
    with Pipeline(config, check, evaluate_command, evaluate_results) as run:
        known = artifacts_given(config)
        data: Input = data_of(known) if known else run(prepare_data, "data_prep", config.data_prep_job)
        policy = _adopt(run, "policy", config.policy)
        baseline: Input = policy
        if config.baseline is not None:
            baseline = _adopt(run, "baseline", config.baseline)
        elif "sft" in known:
            baseline = known.get("sft_selected", known["sft"])
        judged: dict[str, Input] = {"data": data, "reference": known.get("ppo_init", known.get("sft", baseline))}
        if _has_gold(config, known):
            judged["world"] = data
        if config.reward_model is not None:
            judged["reward_model"] = _adopt(run, "reward_model", config.reward_model, "model")
        elif "reward_model" in known:
            judged["reward_model"] = known["reward_model"]
        given = config.evaluation.judges.independent_reward_model
        if given is None and "reward_model-independent" in known:  # one that is given by its folder judges instead
            judged["independent_reward_model"] = known["reward_model-independent"]

        measured: dict[str, Input] = {"base": known["pretrain"]} if "pretrain" in known else {}
        measured[BASELINE] = baseline
        if baseline is not policy:
            measured[POLICY] = policy
        sheets = {
            name: run(evaluate_policy, "evaluation", config.evaluation.measured, about=name, policy=subject, **judged)
            for name, subject in measured.items()
        }
        if config.evaluation.few_shot.asked:
            behind, base = config.evaluation.measured_prompted, measured["base"]
            sheets["prompted"] = run(evaluate_policy, "evaluation", behind, about="prompted", policy=base, **judged)
        report = run(compare_policies, "evaluation", config.evaluation.compared, about="", **sheets)
        gate = run(check_budget, "gate", config.evaluation.gate, about=POLICY, evaluation=report)
        decision = read_decision(run, gate)
        folder = run.store.open(report.result())
        comparison = PolicyComparison.model_validate_json((folder / COMPARISON).read_text(encoding="utf-8"))
        create_markdown_artifact(key="report", markdown=markdown_table(comparison), description=comparison.verdict)
        link_pages(config.tracking.mlflow_uri, run.context.experiment_id, run.run_id)
        log = open_run(run.context.tracking_uri, run.run_id)
        log.metrics(comparison.metrics)
        log.flush()
        log.tags({"policy": config.policy})
        log.file(folder / REPORT)
        outcome = Evaluated(report=str(folder), run_id=run.run_id, metrics=comparison.metrics, stages=run.records())
        limits = config.evaluation.gate
        if decision.passed and limits.model_name is not None:
            released = policy.result()
            tags = {"digest": released.digest, "weights": weights_of(run.store, released), "pipeline_run": run.run_id}
            place = run.store.open(released) / "policy"
            version = register_model(run.context.tracking_uri, limits.model_name, limits.alias, place, run.run_id, tags)
            outcome = outcome.model_copy(update={"version": version})
        return settle(run, outcome, decision)


def _adopt(run: Pipeline, knob: str, folder: str, kind: str = "policy") -> PrefectFuture[ArtifactRef]:
    """Make an artifact of the model folder that a key of the configuration names."""
    return run(adopt_model, "adopted", AdoptJob(folder=folder, knob=knob, kind=kind), about=knob)


def artifacts_given(config: EvaluateConfig) -> dict[str, ArtifactRef]:
    """Stage -> artifact of the last round of the run, or of the data set, that ``data`` names; empty when data is to be prepared.

    Raises:
        ConfigError: there is no such run and no such data set.
        ArtifactError: the store has lost one of them.
    """
    if config.data is None:
        return {}
    store = config.tracking.open_store()
    stage, _, rest = config.data.partition("/")
    keys = {stage: config.data} if rest else of_last_round(artifacts_of(config.tracking.uri, config.data))
    if "data_prep" not in keys:
        raise ConfigError(
            f"data: {config.data} is no pipeline run in {config.tracking.uri} and no data_prep/<fingerprint> of the store; "
            "give the id that MLflow shows for a run of flows.rlhf, or null to prepare data_prep"
        )
    found = {}
    for name, key in keys.items():
        ref = store.find(*key.split("/"))
        if ref is None:
            told = (
                f"{key} is not in {store.root}; `python -m flows.store list` shows what is"
                if rest
                else f"{config.data} made {key}, which is not in {store.root}; run that pipeline again to rebuild it"
            )
            raise ArtifactError(f"data: {told}")
        found[name] = ref
    return found


def as_prepared(config: EvaluateConfig, values: DictConfig) -> EvaluateConfig:
    """With the lengths that ``data`` was prepared for, where none were typed.

    ``conf/`` takes them from ``data_prep``, which is another data set's when ``data`` is given: the embedded world's 40 and 24
    tokens would cut other prompts and responses without a word.
    """
    if config.data is None:
        return config
    data = artifacts_given(config)["data_prep"]
    manifest = config.tracking.open_store().manifest(data.stage, data.fingerprint)
    assert manifest is not None, "an artifact that was found has a manifest"
    prepared = manifest.depends_on["config"]["data_prep"]
    lengths = {
        name: prepared[name]
        for name in ("prompt_tokens", "response_tokens", "prompt_layout")
        if OmegaConf.is_interpolation(values.evaluation, name)
    }
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update=lengths)})


def check(config: EvaluateConfig) -> None:
    """Store, device, runner, model folders, judges, and whether anyone can judge.

    Raises:
        PlumblineError: the first thing that is wrong, with its remedy.
    """
    config.tracking.open_store().reach()
    check_devices(config.runtime)
    check_runner(config.runtime.runner)
    for name in ("policy", "baseline"):
        if getattr(config, name) is not None:
            check_model_folder(name, getattr(config, name))
    check_context(config)
    if config.reward_model is not None:
        check_reward_model(Path(config.reward_model), "reward_model")
    check_judges(config.evaluation)
    independent = config.evaluation.judges.independent_reward_model
    if config.reward_model is not None and independent is not None:
        check_other_weights(Path(independent), Path(config.reward_model))
    check_measures(config.evaluation, _shortest_context(config))
    known = artifacts_given(config)
    if config.evaluation.few_shot.asked and "pretrain" not in known:
        raise ConfigError(
            "evaluation.few_shot: asks for the base model behind examples, and data names no run, so that there is none; give "
            "data=<MLflow run id>, or set evaluation.few_shot.examples=0 evaluation.few_shot.file=null"
        )
    gold, independent = _has_gold(config, known), config.evaluation.judges.independent_reward_model
    if not gold and config.evaluation.toxicity.scorer == "sandbox_words":
        raise ConfigError(
            "evaluation: sandbox, whose word list and lengths fit the embedded world, and the data are your own; give "
            "evaluation=own_data"
        )
    if not known.get("reward_model") and not config.reward_model and not independent and not gold:
        raise ConfigError(
            "reward_model: null, data is no pipeline run and no embedded world, so nobody gives scores; give "
            "reward_model=<folder> or data=<MLflow run id>"
        )


def _has_gold(config: EvaluateConfig, known: Mapping[str, ArtifactRef]) -> bool:
    """Whether the data are the embedded world's; a prepared data set may just as well be somebody's own."""
    if config.data_prep is not None:
        return config.data_prep.source == "sandbox"
    data = known["data_prep"]
    manifest = config.tracking.open_store().manifest(data.stage, data.fingerprint)
    return manifest is not None and "world.json" in manifest.files


def _contexts(config: EvaluateConfig) -> dict[str, int]:
    """Longest sequence of the models that say so, by key."""
    found: dict[str, int] = {}
    for name, folder in (("policy", config.policy), ("baseline", config.baseline)):
        if folder is not None:
            shape = json.loads((Path(folder).expanduser() / "config.json").read_text(encoding="utf-8"))
            tokens = next((shape[key] for key in ("max_position_embeddings", "n_positions") if key in shape), None)
            found |= {} if tokens is None else {name: int(tokens)}
    return found


def _shortest_context(config: EvaluateConfig) -> int:
    return min(_contexts(config).values(), default=sys.maxsize)


def check_context(config: EvaluateConfig) -> None:
    """What is read together must fit into what a foreign model can read."""
    asked = config.evaluation
    for first, second in (("prompt_tokens", "response_tokens"), ("context_tokens", "benchmark_answer_tokens")):
        needed = getattr(asked, first) + getattr(asked, second)
        for name, context in _contexts(config).items():
            if context < needed:
                raise ModelError(
                    f"{name}: {getattr(config, name)} reads {context} tokens, and evaluation.{first} + {second} ask for "
                    f"{needed}; lower them, such as evaluation.{first}={max(1, context - getattr(asked, second))}"
                )


def say(outcome: Evaluated, config: EvaluateConfig) -> None:
    """Print the table and where everything is."""
    screen = console()
    screen.print()
    screen.print(outcome.comparison.verdict, style="bold", soft_wrap=True, highlight=False)
    screen.print(terminal_table(outcome.comparison))
    ran = [record.stage for record in outcome.stages if record.ran]
    screen.print(f"{len(ran)} of {len(outcome.stages)} stages ran", soft_wrap=True)
    baseline = config.baseline or (
        "the run's SFT policy" if config.data and "/" not in config.data else "the policy itself"
    )
    screen.print(f"SFT is   {baseline}", soft_wrap=True)
    screen.print(f"policy   {config.policy}", soft_wrap=True)
    if outcome.version is not None:
        gate = config.evaluation.gate
        screen.print(f"{outcome.gate}; {gate.model_name} version {outcome.version}, {gate.alias}", soft_wrap=True)
    screen.print(f"report   {Path(outcome.report) / REPORT}", soft_wrap=True)


@hydra.main(config_path="../conf", config_name="evaluate", version_base="1.3")
def main(values: DictConfig) -> None:
    """Command line: compose, validate, check, measure."""
    tame_logs()
    try:
        config = as_prepared(parse_evaluate(values), values)
        check(config)
        DEADLINE.allow(config.runtime.stop_seconds or 0.0)
        with prefect_session(meanwhile=config.tracking.prepare):
            outcome = evaluate(config)
        say(outcome, config)
    except GateFailed as failed:
        say(failed.outcome, config)
        print(f"\n{failed}", file=sys.stderr)
        sys.exit(EXIT_STATUS)
    except PlumblineError as error:
        sys.exit(f"\nerror: {error}")


def command_line() -> None:
    """`python -m flows.evaluate`."""
    try:
        probe(environment.HOME)  # where Hydra makes a folder before this program has a say
        with ends_in_time():
            main()
    except PlumblineError as error:
        sys.exit(f"\nerror: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from what is saved", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    command_line()
