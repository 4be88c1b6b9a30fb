"""The real ``conf/``, composed and validated in all its overlays, and every error a user can make with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.config import CONF, load, parse
from tasks.engine.errors import ConfigError


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def experiment(name: str) -> list[str]:
    """An experiment with the values that it wants from the command line."""
    wanted = ["data_prep.folder=x"] + (["model.name_or_path=x"] if name in ("own_data", "small_model") else [])
    return [f"experiment={name}", *wanted]


@pytest.mark.parametrize(
    "overrides",
    [[], *(experiment(name) for name in options("experiment"))]
    + [[f"scale={name}"] for name in options("scale")]
    + [[f"runtime={name}"] for name in options("runtime")],
    ids=lambda overrides: " ".join(overrides) or "default",
)
def test_every_overlay_is_valid(overrides: list[str]) -> None:
    assert load(overrides).seed == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ppo.bta=1"], "bta"),
        (["+ppo.bta=1"], r"ppo\.bta: unknown key"),
        (["ppo.beta=lots"], r"ppo\.beta: .*found 'lots'"),
        (["ppo.beta=-1"], r"ppo\.beta: .*greater than or equal to 0, found -1"),
        (["ppo.minibatch_size=7"], r"minibatch_size \(7\) must divide episodes_per_iteration"),
        (["model.context_tokens=16"], r"does not fit into model\.context_tokens \(16\)"),
        (["model.architecture.heads=5"], r"heads \(5\) must divide hidden_size \(96\)"),
        (["runtime.runner=threds"], r"runtime\.runner: .*found 'threds'"),
        (["model=nowhere"], "nowhere"),
        (["sft.epochs"], "sft.epochs"),
        (["ppo.adapter.rank=8"], r"ppo\.adapter has no values as it is; choose adapter=NAME"),
        (
            ["model=pretrained", "scale=miniature", "model.name_or_path=null"],
            "model: name_or_path is null.*model=scratch",
        ),
    ],
)
def test_mistakes_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(overrides)


def test_dpo_sees_the_comparisons_of_the_reward_model_that_ppo_optimises() -> None:
    assert (
        load(["reward_model.trained_on=second_half", "train_dpo=true"]).preference_runs["dpo"].trained_on
        == "second_half"
    )
    halved = load(["independent_reward_model=disjoint_half", "train_dpo=true"])
    assert halved.preference_runs["dpo"].trained_on == halved.reward_model_run.trained_on == "first_half"
    with pytest.raises(ConfigError, match=r"dpo\.trained_on is second_half; set dpo\.trained_on=all"):
        load(["independent_reward_model=disjoint_half", "dpo.trained_on=second_half"])


@pytest.mark.parametrize("value", ["-1", "abc", "99999999999999999999"])
def test_a_value_that_others_follow_is_told_once(value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load([f"seed={value}"])
    first, *found = str(refused.value).splitlines()
    assert first == "invalid configuration" and [line.split(":")[0].strip() for line in found] == ["seed"]
    with pytest.raises(ConfigError) as refused:
        load([f"seed={value}", "ppo.seed=x"])  # it follows no longer
    assert [line.split(":")[0].strip() for line in str(refused.value).splitlines()[1:]] == ["ppo.seed", "seed"]


def test_one_value_of_one_stages_adapter() -> None:
    config = load(["adapter=lora", "adapter.alpha=8", "ppo.adapter.rank=4", "dpo.adapter=null"])
    stages = (config.sft, config.ppo_init, config.reward_model, config.rejection_sampling, config.ppo)
    found = [stage.adapter and (stage.adapter.rank, stage.adapter.alpha) for stage in stages]
    assert found == [*[(16, 8.0)] * 4, (4, 8.0)] and config.dpo.adapter is None


def test_a_missing_key_is_named() -> None:
    values = load().model_dump()
    del values["ppo"]["beta"]
    with pytest.raises(ConfigError, match=r"ppo\.beta: missing"):
        parse(values)


def test_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().ppo.beta = 1.0  # type: ignore[misc]


def test_one_seed_for_all_stages_unless_set() -> None:
    config = load(["seed=7", "ppo.seed=8"])
    assert (config.sft.seed, config.data_prep.seed, config.ppo.seed) == (7, 7, 8)


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "flows.rlhf", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ppo.bta=1"], "ppo.bta: unknown key; did you mean ppo.beta?"),
        (["ppo.beta=-1"], "error: invalid configuration\n  ppo.beta: "),
        (["runtime.device=cuda:63"], "torch sees"),
        (["experiment=own_data_from_scratch", "data_prep.folder=/nowhere"], "expected a folder with data files"),
        (["model=pretrained", "model.name_or_path=/nowhere"], "does not exist"),
    ],
)
def test_the_command_line_answers_mistakes_with_a_sentence(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = command(*arguments, f"tracking.root={tmp_path}")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_and_cfg() -> None:
    shown = command("--help")
    assert shown.returncode == 0 and "experiment=own_data" in shown.stdout and "runtime: cpu, gpu" in shown.stdout
    values = command("--cfg", "job", "ppo.beta=0.123")
    assert values.returncode == 0 and "beta: 0.123" in values.stdout
