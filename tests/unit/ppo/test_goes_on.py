"""A later round's PPO: the policy starts where the last round's ended, and its KL is measured to PPO-init."""

import json
from functools import partial
from pathlib import Path

import pytest

from tasks.engine.artifacts import ArtifactStore
from tasks.engine.caching import as_task
from tasks.engine.context import StageContext, StageName
from tasks.language.models import save_policy
from tasks.ppo import train_ppo
from tasks.records.data import PreparedRecords, write_prepared_data
from tests.unit import tiny_models
from tests.unit.ppo import tiny


@pytest.mark.parametrize("goes_on", [False, True])
def test_kl_is_measured_to_ppo_init_wherever_the_policy_starts(tmp_path: Path, goes_on: bool) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    put = partial(tiny_models.published, store)

    records = PreparedRecords(rl_prompts={"train": tiny.prompts()}, documents={"train": tiny_models.documents(20)})
    tokenizer = tiny_models.tokenizer()
    inputs = {
        "data": put("data_prep", lambda folder: write_prepared_data(folder, records, tokenizer)),
        "ppo_init": put("ppo_init", lambda folder: save_policy(tiny.policy(), tokenizer, folder / "policy")),
        "reward_model": put("reward_model", lambda folder: tiny.networks().reward_model.save(folder / "model")),
    }
    if goes_on:
        inputs["start"] = put("ppo_ptx", lambda folder: save_policy(tiny.policy(5), tokenizer, folder / "policy"))
    context = StageContext(
        store=str(store.root), tracking_uri="", experiment_id="", parent_run_id="", runtime=tiny.runtime()
    )
    ref = as_task(train_ppo).fn(StageName(group="ppo_ptx"), tiny.config(), context, inputs)
    first = json.loads((store.open(ref) / "history.json").read_text())[0]
    assert (abs(first["objective/kl"]) > 0.1) == goes_on, first["objective/kl"]
