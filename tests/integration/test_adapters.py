"""The whole miniature road with adapters on a model folder as people bring it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.unit.tiny_folder import data_folder, model_folder

IDS = torch.arange(5, 25)[None]


@pytest.mark.slow
def test_every_stage_trains_its_adapter_and_ships_a_plain_model(tmp_path: Path) -> None:
    model, data = model_folder(tmp_path / "model", extra_rows=5), data_folder(tmp_path / "data")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "flows.rlhf", "experiment=own_data", "scale=miniature", "adapter=lora"),
            *("train_dpo=true", "adapter.dropout=0.1", "runtime.gradient_checkpointing=true"),
            *(f"data_prep.folder={data}", f"model.name_or_path={model}", f"tracking.root={tmp_path / 'root'}"),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "PLUMBLINE_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    assert "Traceback" not in done.stderr + done.stdout
    made = {path.parents[1].name: path.parent for path in (tmp_path / "root").rglob("adapter") if path.is_dir()}
    assert made.keys() == {"sft", "ppo_init", "reward_model", "reward_model-independent", "dpo", "ppo_ptx"}
    start = AutoModelForCausalLM.from_pretrained(made["ppo_init"] / "policy")
    for stage in ("dpo", "ppo_ptx"):
        shipped = AutoModelForCausalLM.from_pretrained(made[stage] / "policy")
        reloaded = peft.PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(made["ppo_init"] / "policy"), made[stage] / "adapter"
        )
        with torch.no_grad():
            found, again, before = (network(IDS).logits for network in (shipped, reloaded, start))
        torch.testing.assert_close(again, found, rtol=0, atol=1e-5)
        assert not torch.equal(found, before), f"{stage} has learnt nothing"
    history = json.loads((made["ppo_ptx"] / "history.json").read_text())
    assert history[0]["objective/kl"] == 0.0
    assert any(row["objective/kl"] != 0.0 for row in history[1:])
