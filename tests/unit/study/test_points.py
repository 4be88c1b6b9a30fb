import re

import pytest

from flows.config import load
from flows.study.config import StudyConfig, parse_study
from flows.study.measure import at_one_core
from flows.study.points import Point, next_point, points_of, policy_setting, reward_setting
from flows.study.records import fingerprint_of
from flows.study.study import command_line, pipelines
from tasks.engine.errors import ConfigError
from tests.unit.study.synthetic import study_config


@pytest.mark.parametrize("scale", ["full", "quick", "miniature", "roads", "brake"])
def test_every_scale_is_valid_and_repeats_each_setting_with_three_seeds(scale: str) -> None:
    config = study_config(f"scale={scale}")
    points = points_of(config)
    assert len({point.name for point in points}) == len(points)
    by_setting: dict[str, list[int]] = {}
    for point in points:
        by_setting.setdefault(point.setting, []).append(point.seed)
    assert all(seeds == config.seeds[: len(seeds)] and len(seeds) >= 3 for seeds in by_setting.values())


def test_full_grid() -> None:
    config = study_config()
    settings = list(dict.fromkeys(point.setting for point in points_of(config)))
    gammas = {policy_setting(0.3, gamma) for gamma in config.grid.gammas}
    betas = {policy_setting(beta, 0) for beta in config.grid.betas_without_ptx}
    betas |= {policy_setting(beta, 1) for beta in config.grid.betas_with_ptx}
    assert gammas | betas | set(config.grid.ablations) <= set(settings)
    assert config.grid.gammas[-1] >= 27.8
    assert settings[:4] == ["beta=0.3 gamma=1", "beta=0.3 gamma=0", "beta=0.3 gamma=27.8", "beta=0 gamma=0"]


def test_points_of_one_seed_share_their_trunk() -> None:
    points = [point for point in points_of(study_config("scale=miniature")) if point.seed == 2]
    trunks = set()
    for point in points:
        config = load(list(point.overrides))
        trunks.add(str([config.data_prep_job.fingerprint_fields(), config.pretrain_job.fingerprint_fields()]))
        assert config.seed == 2
    assert len(trunks) == 1


def test_pairs_and_prompts_train_on_the_same_comparisons() -> None:
    config = study_config()
    points = {point.setting: point for point in points_of(config) if point.seed == 1}
    count = config.grid.pair_prompts[0]
    whole, pairs = (load(list(points[reward_setting(count, kind)].overrides)) for kind in ("prompt", "pair"))
    assert whole.comparisons == pairs.comparisons
    assert whole.comparisons.max_prompts == count
    assert (whole.reward_model.batch_element, pairs.reward_model.batch_element) == ("prompt", "pair")
    changed = {"batch_element": "prompt", "batch_size": whole.reward_model.batch_size}
    assert pairs.reward_model.model_copy(update=changed) == whole.reward_model


def test_an_ablation_is_the_reference_with_one_change() -> None:
    points = {point.setting: point for point in points_of(study_config()) if point.seed == 1}
    reference, ablated = (load(list(points[name].overrides)) for name in ("beta=0.3 gamma=1", "no EMA"))
    assert ablated.ppo == reference.ppo.model_copy(update={"ema_decay": 0.0})
    assert ablated.evaluation == reference.evaluation


def test_fingerprints_follow_meaning_not_surroundings() -> None:
    point = points_of(study_config("scale=miniature"))[0]
    config = load(list(point.overrides))
    print_of = fingerprint_of(point, config)
    assert fingerprint_of(point, at_one_core(point, config, "elsewhere")) == print_of
    assert fingerprint_of(point, load([*point.overrides, "ppo.beta=0.4"])) != print_of
    reward = next(point for point in points_of(study_config("scale=miniature")) if point.kind == "reward_model")
    plain, other_ppo = (load([*reward.overrides, *more]) for more in ([], ["ppo.beta=0.4"]))
    assert fingerprint_of(reward, plain) == fingerprint_of(reward, other_ppo)
    assert fingerprint_of(reward, load([*reward.overrides, "reward_model.epochs=2"])) != fingerprint_of(reward, plain)
    longer = reward.model_copy(update={"kind": "sft_epochs", "epochs": 3})
    assert fingerprint_of(longer, plain) != fingerprint_of(longer.model_copy(update={"epochs": 4}), plain)


def test_a_setting_composed_once_is_every_seed_s_own_configuration() -> None:
    points = points_of(study_config("scale=miniature", "grid.comparison_prompts=[]", "grid.pair_prompts=[]"))
    found = dict(pipelines(points))
    assert list(found) == points
    assert all(found[item] == load(list(item.overrides)) for item in points)


def point(setting: str, seed: int) -> Point:
    return Point(kind="policy", setting=setting, seed=seed, overrides=())


def test_a_point_waits_while_another_builds_what_both_need() -> None:
    pending = [point("b", 1), point("a", 2), point("b", 2)]
    assert next_point(pending, [], set()) == pending[0]
    assert next_point(pending, [point("a", 1)], set()) == pending[1]
    assert next_point(pending, [point("a", 1)], {1}) == pending[0]
    assert next_point(pending, [point("a", 1), point("c", 2)], set()) is None
    assert next_point([], [], set()) is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["grid.gammas=[1,0]"], "grid.gammas: .*rising order"),
        (["grid.gammas=[0,3]"], r"grid.gammas: found \[0.0, 3.0\], which lacks \[1.0\]"),
        (["grid.betas_without_ptx=[0.3]"], r"betas_without_ptx: .* lacks \[0.0\]"),
        (["grid.betas_with_ptx=[0,0.3]"], r"betas_with_ptx: found \[0.0, 0.3\], none above reference.beta \(0.3\)"),
        (["grid.pair_prompts=[5]"], r"comparison_prompts: .* lacks \[5.*\]"),
        (["seeds=[1,1]"], "give each once"),
        (["+grid.alphas=[1]"], "grid.alphas: unknown key; `python -m flows.study --cfg job` prints every key"),
        (["rules.confidence=95"], "rules.confidence: .*less than 1"),
    ],
)
def test_mistakes_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        study_config(*overrides)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_an_ablation_has_a_name_that_mlflow_takes() -> None:
    values = study_config("scale=miniature").model_dump()
    values["grid"]["ablations"] = {"no 10 % mix": []}
    with pytest.raises(ConfigError, match=r"grid.ablations: found 'no 10 % mix'; MLflow takes letters"):
        parse_study(values)


def test_the_page_names_the_command_that_measures() -> None:
    assert command_line(["scale=quick", "only_page=true", "seeds=[1, 2]"]) == (
        "python -m flows.study scale=quick 'seeds=[1, 2]'"
    )


def test_the_reference_is_what_the_sandbox_runs() -> None:
    config: StudyConfig = study_config()
    ppo = load().ppo
    assert (config.reference.beta, config.reference.gamma) == (ppo.beta, ppo.gamma)
