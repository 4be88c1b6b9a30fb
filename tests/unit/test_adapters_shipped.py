"""What a stage that trains an adapter leaves in its artifact: a plain model, and the adapter on the base it was trained on."""

from functools import partial
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tasks.dpo import train_dpo
from tasks.dpo.config import DPOConfig
from tasks.engine.artifacts import ArtifactStore
from tasks.engine.caching import as_task
from tasks.engine.context import StageContext, StageName
from tasks.engine.declared import Stage
from tasks.language.models import ScalarModel, save_policy
from tasks.ppo import train_ppo
from tasks.records.comparison_sets import write_comparisons
from tasks.records.data import PreparedRecords, write_prepared_data
from tasks.reward_model import train_reward_model
from tasks.reward_model.config import RewardModelConfig
from tasks.sft import fine_tune
from tasks.sft.config import SFTConfig
from tests.unit import tiny_models as tiny
from tests.unit.dpo.test_train import SMALL, comparisons
from tests.unit.language.test_adapters import LORA, logits
from tests.unit.ppo import tiny as tiny_ppo

ADAPTER = LORA.model_dump()


def made_by(task: Stage, knobs: Any, tmp_path: Path) -> Path:
    """The folder of what a stage makes of tiny inputs, where frozen weights are rounded to bf16."""
    store = ArtifactStore(tmp_path / "artifacts")
    put = partial(tiny.published, store)

    records = PreparedRecords(
        rl_prompts={"train": tiny_ppo.prompts()},
        documents={"train": tiny.documents(20)},
        demonstrations={"train": tiny.demonstrations(8), "valid": tiny.demonstrations(2)},
    )
    policy = put("sft", lambda folder: save_policy(start(), tiny.tokenizer(), folder / "policy"))
    inputs = {
        "data": put("data_prep", lambda folder: write_prepared_data(folder, records, tiny.tokenizer())),
        "comparisons": put("comparisons", lambda folder: write_comparisons(folder, {"train": comparisons()})),
        "reward_model": put(
            "reward_model", lambda folder: ScalarModel.from_policy(start(), draws()).save(folder / "model")
        ),
        **dict.fromkeys(("base", "ppo_init", "sft"), policy),
    }
    runtime = tiny_ppo.runtime(frozen_precision="bf16")
    context = StageContext(store=str(store.root), tracking_uri="", experiment_id="", parent_run_id="", runtime=runtime)
    read = {
        fine_tune: ("data", "base"),
        train_dpo: ("data", "comparisons", "ppo_init"),
        train_reward_model: ("data", "comparisons", "sft"),
        train_ppo: ("data", "ppo_init", "reward_model"),
    }[task]
    ref = as_task(task).fn(StageName(group=read[-1] + "_made"), knobs, context, {name: inputs[name] for name in read})
    return store.open(ref)


def start() -> PreTrainedModel:
    return tiny_ppo.policy()


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def rounded(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    return model


@pytest.mark.parametrize("name", ["sft", "dpo", "ppo"])
def test_a_policy_and_its_adapter_on_a_rounded_base(name: str, tmp_path: Path) -> None:
    task, knobs = {
        "sft": (
            fine_tune,
            SFTConfig.model_validate(
                tiny.settings("sft", epochs=1, batch_size=4, prompt_tokens=12, response_tokens=10, adapter=ADAPTER)
            ),
        ),
        "dpo": (train_dpo, DPOConfig.model_validate(tiny.settings("dpo", **SMALL, adapter=ADAPTER))),
        "ppo": (train_ppo, tiny_ppo.config(adapter=ADAPTER)),
    }[name]
    folder = made_by(task, knobs, tmp_path)
    shipped = AutoModelForCausalLM.from_pretrained(folder / "policy")
    assert torch.equal(shipped.get_input_embeddings().weight, rounded(start()).get_input_embeddings().weight)
    again = peft.PeftModel.from_pretrained(rounded(start()), folder / "adapter")
    torch.testing.assert_close(logits(again), logits(shipped), rtol=0, atol=1e-5)
    assert (logits(shipped) - logits(rounded(start()))).abs().max() > 1e-4, "it has learnt nothing"


def test_a_reward_model_and_its_adapter_on_a_rounded_base(tmp_path: Path) -> None:
    knobs = RewardModelConfig.model_validate(tiny.settings("reward_model", **SMALL, adapter=ADAPTER))
    folder = made_by(train_reward_model, knobs, tmp_path)
    shipped = ScalarModel.load(folder / "model").backbone
    base = rounded(start()).base_model
    assert torch.equal(shipped.get_input_embeddings().weight, base.get_input_embeddings().weight)
    again = peft.PeftModel.from_pretrained(base, folder / "adapter")
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        found, expected = (network(input_ids=ids).last_hidden_state for network in (again, shipped))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
