"""Which change re-runs which stages, and what ``--explain`` says about it: real configurations, real fingerprints, the
flow's own list of stages; only the artifacts are made up."""

import json
import re
import shutil
from pathlib import Path

import pytest

from flows.ask.explain import CACHED, Foreseen, explain, plan_of
from flows.ask.timing.before import written_before
from flows.config import RLHFConfig, load
from flows.instructgpt import instructgpt
from flows.run.release import gate_stage, release_stage
from tasks.engine import fingerprint as fingerprints
from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.config import Config
from tasks.engine.context import StageName
from tasks.engine.declared import Stage
from tasks.results.decision import DECISION

pytestmark = pytest.mark.usefixtures("home")

STAGES = [
    *("data_prep", "pretrain", "sft", "ppo_init", "comparisons"),
    *("reward_model", "reward_model-independent", "ppo_ptx", "evaluation-base", "evaluation-sft"),
    *("evaluation-ppo_init", "evaluation-ppo_ptx", "evaluation", "gate-ppo_ptx", "release-ppo_ptx"),
]
EVALUATIONS = STAGES[-7:]
COMPARED = STAGES[-3:]
JUDGED = STAGES[5:]
PPO = ["ppo_ptx", *STAGES[-4:]]


class Filler:
    """Called like a ``Pipeline``: publishes, for every stage, one file that says what it was made from."""

    def __init__(self, store: ArtifactStore, passes: bool) -> None:
        self.store, self.passes = store, passes
        self.futures: dict[str, ArtifactRef] = {}

    def __call__(self, task: Stage, group: str, config: Config, about: str = "", **inputs: ArtifactRef) -> ArtifactRef:
        stage = str(StageName(group=group, about=about))
        depends_on = fingerprints.dependencies(task.package, config, inputs)
        made = fingerprints.fingerprint(depends_on)
        with self.store.publish(stage, made, inputs, depends_on) as draft:
            (draft.folder / "result.txt").write_text(made)
            if group == "ppo_ptx":
                draft.metrics = {"cost/samples": 40.0, "cost/tokens_drawn": 280.0}
            if group == "gate":
                decision = {"policy": "ppo_ptx", "passed": self.passes, "checks": []}
                (draft.folder / DECISION).write_text(json.dumps(decision))
        assert draft.ref is not None
        self.futures[stage] = draft.ref
        return draft.ref


def fill(config: RLHFConfig, passes: bool = True) -> None:
    filler = Filler(config.tracking.open_store(), passes)
    report, policy = instructgpt(config, filler)
    gate = gate_stage(filler, config, report)
    if passes:
        release_stage(filler, config, report, policy, gate)


def will_run(config: RLHFConfig) -> list[str]:
    return [plan.stage for plan in plan_of(config) if plan.state != CACHED]


def plan(config: RLHFConfig, stage: str) -> Foreseen:
    return next(plan for plan in plan_of(config) if plan.stage == stage)


def test_a_question_about_a_store_that_is_not_there_makes_none(tmp_path: Path) -> None:
    config = load([f"tracking.root={tmp_path / 'nowhere'}"])
    assert will_run(config) == STAGES
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """A store that holds one whole run of the embedded default."""
    root = tmp_path_factory.mktemp("filled")
    config = load([f"tracking.root={root}"])
    assert will_run(config) == STAGES
    fill(config)
    return root


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("tracking.run_name=another", []),
        ("runtime=gpu", []),  # device, precision, threads, micro-batch, generation batch, runner, workers, checkpoints
        ("runtime.tokens_per_microbatch=500", []),
        ("ppo.beta=0.5", PPO),
        ("ppo.gamma=0", ["ppo", "evaluation-ppo", "evaluation", "gate-ppo", "release-ppo"]),
        ("plain_ppo=true", ["ppo", "evaluation-ppo", "evaluation", "gate-ppo_ptx", "release-ppo_ptx"]),
        ("evaluation.test_prompts=50", EVALUATIONS),
        ("evaluation.best_of_n=[2]", EVALUATIONS),
        ("evaluation.bootstrap_samples=300", COMPARED),
        ("evaluation.confidence=0.9", COMPARED),
        ("evaluation.tie_margin.gold=0.5", COMPARED),
        ("evaluation.samples_in_report=3", COMPARED),
        ("evaluation.judges.human_pairs=7", COMPARED),
        ("evaluation.judges.length_control.folds=4", COMPARED),
        ("evaluation.gate.min_win_rate=0.6", STAGES[-2:]),
        ("evaluation.gate.alias=best", STAGES[-1:]),
        ("reward_model.batch_size=3", JUDGED),
        ("comparisons.completions_max=5", ["comparisons", *JUDGED]),
        ("sft.epochs=1", ["sft", "comparisons", *JUDGED]),
        ("ppo_init.epochs=1", ["ppo_init", "ppo_ptx", *EVALUATIONS]),
        ("model.architecture.layers=1", STAGES[1:]),
        ("model.tokenizer.vocab_size=400", STAGES),
        ("seed=2", STAGES),
    ],
)
def test_what_a_setting_runs_again(root: Path, override: str, expected: list[str]) -> None:
    assert will_run(load([f"tracking.root={root}", override])) == expected


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project whose source counts in place of this one's."""
    for folder in ("tasks", "flows"):
        shutil.copytree(fingerprints.PROJECT / folder, tmp_path / folder)
    (tmp_path / "README.md").write_text("# Plumbline\n")
    monkeypatch.setattr(fingerprints, "PROJECT", tmp_path)
    fingerprints.source_digests.cache_clear()
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("README.md", "New words.\n", []),
        ("flows/run/pipeline.py", "X = 1\n", []),
        ("tasks/engine/stage.py", "X = 1\n", []),
        ("tasks/engine/checkpoint.py", "X = 1\n", []),
        ("tasks/ppo/loss.py", "# a comment\n", []),
        ("tasks/ppo/loss.py", "X = 1\n", PPO),
        ("tasks/ppo/new.py", "X = 1\n", PPO),
        ("tasks/compare/report.html.jinja", "<p>", COMPARED),
        ("tasks/compare/report.py", "X = 1\n", COMPARED),
        ("tasks/compare/plots.py", "X = 1\n", COMPARED),
        ("tasks/compare/judges/chat.py", "X = 1\n", COMPARED),
        ("tasks/results/verdict.py", "X = 1\n", COMPARED),
        ("tasks/results/table.py", "X = 1\n", COMPARED),
        ("tasks/gate/decide.py", "X = 1\n", STAGES[-2:]),
        ("tasks/release/card.py", "X = 1\n", STAGES[-1:]),
        ("tasks/measure/policy_sheet.py", "X = 1\n", EVALUATIONS),
        ("tasks/reward_model/loss.py", "X = 1\n", JUDGED),
        ("tasks/language/generation.py", "X = 1\n", STAGES[2:]),
        ("tasks/language/packing.py", "X = 1\n", STAGES[1:]),
        ("tasks/engine/config.py", "X = 1\n", STAGES),
        ("tasks/sandbox/words.py", "X = 1\n", ["data_prep", *STAGES[1:]]),
    ],
)
def test_what_an_edit_runs_again(root: Path, project: Path, file: str, text: str, expected: list[str]) -> None:
    with (project / file).open("a") as stream:
        stream.write(text)
    config = load([f"tracking.root={root}"])
    try:
        assert will_run(config) == expected
        if expected:
            module = file.replace("/", ".").removesuffix(".py") if file.endswith(".py") else file
            how = "added or removed" if file.endswith("new.py") else "changed"
            assert f"source {module} {how}" in plan(config, expected[0]).why
    finally:
        fingerprints.source_digests.cache_clear()


def own(tmp_path: Path) -> list[str]:
    """Overrides of a run on own data and an own model."""
    data, model = tmp_path / "data", tmp_path / "model"
    for folder in (data, model):
        folder.mkdir()
    (data / "prompts.jsonl").write_text('{"prompt": "how many?"}\n')
    (data / "demonstrations.jsonl").write_text('{"prompt": "what?", "response": "that"}\n')
    (model / "model.safetensors").write_bytes(b"weights")
    where = [f"tracking.root={tmp_path / 'results'}", "model.context_tokens=2048"]
    return [*where, "experiment=own_data", f"model.name_or_path={model}", f"data_prep.folder={data}"]


def test_a_byte_of_ones_own_data_or_model_runs_everything_again(tmp_path: Path) -> None:
    *others, folder = own(tmp_path)
    config = load([*others, folder])
    fill(config)
    assert will_run(config) == []
    copied = shutil.copytree(tmp_path / "data", tmp_path / "copy")
    assert will_run(load([*others, f"data_prep.folder={copied}"])) == []
    (copied / "prompts.jsonl").write_text('{"prompt": "how many!"}\n')
    changed = load([*others, f"data_prep.folder={copied}"])
    assert will_run(changed) == [item.stage for item in plan_of(config)]
    [reason] = plan(changed, "data_prep").why
    assert re.fullmatch(r"files\.prompts\.jsonl [0-9a-f]{12} -> [0-9a-f]{12}", reason)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"Weights")
    assert "pretrain" in will_run(config) and "model.safetensors" in plan(config, "pretrain").why[-1]


def test_a_word_of_the_embedded_world_touches_ones_own_data_only_where_it_is_asked_for(
    tmp_path: Path, project: Path
) -> None:
    overrides = own(tmp_path)
    config = load(overrides)
    rude = load([*overrides, "evaluation.toxicity.scorer=sandbox_words"])
    fill(config)
    fill(rude)
    with (project / "tasks/sandbox/words.py").open("a") as stream:
        stream.write("X = 1\n")
    fingerprints.source_digests.cache_clear()
    try:
        assert will_run(config) == []
        assert will_run(rude)[0] == "evaluation-base"
    finally:
        fingerprints.source_digests.cache_clear()


def test_reasons_name_the_setting_as_it_is_spelled_and_the_inputs_that_are_awaited(root: Path) -> None:
    config = load([f"tracking.root={root}", "ppo.beta=0.5", "ppo.policy_adam.learning_rate=0.25"])
    was = load([]).ppo
    assert plan(config, "ppo_ptx").why == (
        f"ppo.beta {was.beta} -> 0.5",
        f"ppo.policy_adam.learning_rate {was.policy_adam.learning_rate} -> 0.25",
    )
    assert plan(config, "evaluation-ppo_ptx").why == ("input policy will be made again by ppo_ptx",)
    seeded = load([f"tracking.root={root}", "sft.epochs=1", "comparisons.completions_max=5"])
    assert plan(seeded, "comparisons").why == (
        "input policy will be made again by sft",
        f"comparisons.completions_max {load([]).comparisons.completions_max} -> 5",
    )


def test_a_world_that_will_be_made_again_is_no_change_of_source(root: Path) -> None:
    found = plan(load([f"tracking.root={root}", "seed=2"]), "comparisons").why
    assert "input world will be made again by data_prep" in found
    assert not [reason for reason in found if reason.startswith("source")]


def test_the_nearest_earlier_result_is_the_one_compared_with(tmp_path: Path) -> None:
    where = f"tracking.root={tmp_path}"
    for overrides in (["ppo.beta=0.1"], ["ppo.beta=0.2", "ppo.policy_clip=0.9"]):
        fill(load([where, *overrides]))
    # As near to the one as to the other: the later one counts.
    reason = f"ppo.policy_clip 0.9 -> {load([]).ppo.policy_clip}"
    assert plan(load([where, "ppo.beta=0.2"]), "ppo_ptx").why == (reason,)
    assert plan(load([where, "ppo.beta=0.3", "ppo.policy_clip=0.9"]), "ppo_ptx").why == ("ppo.beta 0.2 -> 0.3",)


def test_damage_loss_and_checkpoints_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load([f"tracking.root={tmp_path}"])
    fill(config)
    store = config.tracking.open_store()
    refs = {item.stage: item.ref for item in plan_of(config)}
    ref = refs["reward_model"]
    assert ref is not None
    path = store.folder(ref.stage, ref.fingerprint) / "result.txt"
    path.write_text(path.read_text()[::-1])  # of equal size
    checkpoints = store.checkpoints(ref.stage, ref.fingerprint)
    (checkpoints / "step-00000012.pt").touch()
    damaged = plan(config, "reward_model")
    assert "the result is damaged: file result.txt has digest" in damaged.why[0]
    assert damaged.why[1] == "goes on from its checkpoint of step 12"
    shutil.rmtree(store.folder(ref.stage, ref.fingerprint))
    assert plan(config, "reward_model").why[0] == "no earlier result"
    explain(config)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == STAGES
    assert lines[0].split() == ["data_prep", "cached"]
    assert re.match("reward_model +will run +no earlier result; goes on from", lines[5])
    assert lines[-1].startswith("9 of 15 stages will run")


def test_a_policy_that_failed_its_gate_is_not_released(tmp_path: Path) -> None:
    config = load([f"tracking.root={tmp_path}"])
    fill(config, passes=False)
    assert [(item.stage, item.state) for item in plan_of(config)] == [(stage, CACHED) for stage in STAGES[:-1]]


def test_a_dry_run_knows_how_long_responses_were_from_the_same_start() -> None:
    assert written_before(load([])) is None
    fill(load([]))
    assert written_before(load([])) == 7.0
    assert written_before(load(["ppo.beta=0.05", "reward_model.epochs=2"])) == 7.0
    for other_start_or_limit in ("ppo_init.epochs=3", "data_prep.response_tokens=23", "ppo.response_tokens=23"):
        assert written_before(load([other_start_or_limit])) is None
