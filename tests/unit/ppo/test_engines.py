"""The rollout engines: one contract, vLLM's side tested against a stand-in for its package."""

import sys
import types
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tasks.engine.errors import ConfigError, TrainingDiverged
from tasks.ppo.engines import Drawn, VLLMEngine, drift
from tests.unit.ppo import tiny
from tests.unit.sampling import generate

EOS, PAD = 1, 0


class Completion:
    def __init__(self, token_ids: list[int], logprobs: list[dict[int, Any]]) -> None:
        self.token_ids, self.logprobs = token_ids, logprobs


class FakeLLM:
    """What the engine uses of ``vllm.LLM``, with a Hugging Face model inside; refuses to work while it sleeps."""

    made: list["FakeLLM"] = []
    offset = 0.0

    def __init__(self, model: str, **settings: Any) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(model).eval()
        self.settings, self.awake, self.calls = settings, {"weights", "kv_cache"}, []
        FakeLLM.made.append(self)

    def sleep(self, level: int) -> None:
        self.awake = set()
        if level == 2:  # weights are thrown away: whoever forgets to hand them over samples from nothing
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.zero_()

    def wake_up(self, tags: list[str]) -> None:
        self.awake |= set(tags)

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset_prefix_cache")

    def apply_model(self, function: Any) -> list[Any]:
        assert "weights" in self.awake
        served = types.SimpleNamespace(load_weights=lambda named: self.model.load_state_dict(dict(named)))
        return [function(served)]

    def generate(self, prompts: list[Any], params: list[Any], use_tqdm: bool) -> list[Any]:
        assert self.awake == {"weights", "kv_cache"}
        outputs = []
        for prompt, wanted in zip(prompts, params, strict=True):
            ids = prompt["prompt_token_ids"]
            stops = wanted.stop_token_ids
            response = generate(
                self.model,
                [ids],
                max_new_tokens=wanted.max_tokens,
                temperature=wanted.temperature,
                generator=torch.Generator().manual_seed(wanted.seed),
                eos_id=stops[0] if stops else -1,
                pad_id=PAD,
                batch_size=1,
            )[0]
            with torch.no_grad():
                logits = self.model(torch.tensor([ids + response])).logits[0, len(ids) - 1 : -1]
            table = torch.log_softmax(logits / wanted.temperature, dim=-1) + self.offset
            said = [
                {token: types.SimpleNamespace(logprob=row[token].item())}
                for token, row in zip(response, table, strict=True)
            ]
            outputs.append(types.SimpleNamespace(outputs=[Completion(response, said)]))
        return outputs


@pytest.fixture(autouse=True)
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("vllm")
    module.LLM = FakeLLM  # type: ignore[attr-defined]
    module.SamplingParams = lambda **values: types.SimpleNamespace(**values)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(FakeLLM, "made", [])
    monkeypatch.setattr(FakeLLM, "offset", 0.0)


def engine(eos: int | None = EOS, **changes: Any) -> VLLMEngine:
    on_gpu = tiny.runtime(device="cuda")
    return VLLMEngine(tiny.config(**changes), on_gpu, tiny.policy(), tiny.tokenizer(), eos)


def prompts() -> list[list[int]]:
    return [[3, 5, 8, 4, 5], [3, 5, 9, 10, 4, 5], [3, 5, 11, 4, 5]]


def test_vllm_samples_from_the_weights_of_this_moment() -> None:
    trained = tiny.policy(5)
    drawn = engine().sample(trained, prompts(), torch.Generator().manual_seed(3))
    served = FakeLLM.made[0].model
    seeds = torch.randint(2**31 - 1, (3,), generator=torch.Generator().manual_seed(3)).tolist()
    for prompt, response, seed in zip(prompts(), drawn.responses, seeds, strict=True):
        alone = generate(
            trained,
            [prompt],
            max_new_tokens=6,
            temperature=1.0,
            generator=torch.Generator().manual_seed(seed),
            eos_id=EOS,
            pad_id=PAD,
            batch_size=1,
        )
        assert response == alone[0]
    assert float(next(served.parameters()).detach().abs().sum()) == 0.0, "the engine sleeps while the trainer trains"
    assert FakeLLM.made[0].calls == ["reset_prefix_cache"], "keys and values of old weights must not be reused"


def test_equal_generators_ask_for_equal_responses() -> None:
    first, second = (engine().sample(tiny.policy(), prompts(), torch.Generator().manual_seed(9)) for _ in range(2))
    assert first == second


def test_without_an_end_every_response_has_full_length() -> None:
    drawn = engine(eos=None).sample(tiny.policy(), prompts(), torch.Generator().manual_seed(1))
    assert [len(response) for response in drawn.responses] == [6, 6, 6]


def test_the_engine_gets_the_stage_s_limits() -> None:
    engine(vllm_memory_share=0.25)
    settings = FakeLLM.made[0].settings
    assert settings["max_model_len"] == 8 + 6
    assert settings["gpu_memory_utilization"] == 0.25
    assert settings["dtype"] == "float32"
    assert settings["logprobs_mode"] == "processed_logprobs"


@pytest.mark.parametrize(("offset", "expected"), [(0.0, 0.0), (0.25, 0.25)])
def test_the_learner_reports_the_drift(monkeypatch: pytest.MonkeyPatch, offset: float, expected: float) -> None:
    monkeypatch.setattr(FakeLLM, "offset", offset)
    learner = tiny.learner(max_logprob_drift=None)
    learner.engine = engine()
    for _ in range(2):  # the second iteration samples from weights that have moved
        metrics = learner.step()
    assert metrics["rollout/logprob_drift"] == pytest.approx(expected, abs=1e-5)
    assert metrics["rollout/logprob_drift_max"] == pytest.approx(expected, abs=1e-5)


def test_our_own_engine_has_no_drift_to_report() -> None:
    assert not any(name.startswith("rollout/") for name in tiny.learner().step())


def test_drift_counts_each_token_of_ragged_rows_once() -> None:
    said = Drawn([[4], [4, 5, 6]], [[-1.0], [-1.0, -2.0, -3.0]])
    recomputed = torch.tensor([[-1.5, 0.0, 0.0], [-1.0, -2.0, -2.0]])
    assert drift(said, recomputed, 0.375) == {"rollout/logprob_drift": 0.375, "rollout/logprob_drift_max": 1.0}
    with pytest.raises(TrainingDiverged, match=r"lie 0\.375 nats per token .* ppo\.max_logprob_drift \(0\.3\)"):
        drift(said, recomputed, 0.3)


def test_an_engine_that_samples_from_other_weights_is_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = tiny.learner()
    learner.engine = engine()
    learner.step()
    before = [parameter.clone() for parameter in learner.networks.policy.parameters()]
    monkeypatch.setattr(FakeLLM, "offset", 0.25)
    with pytest.raises(TrainingDiverged, match=r"0\.25 nats per token"):
        learner.step()
    assert all(map(torch.equal, before, learner.networks.policy.parameters()))


def test_vllm_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match=r"runtime.device is cpu, expected a CUDA device"):
        tiny.learner(rollout_engine="vllm")


def test_vllm_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match=r"pip install -e .\[vllm\]"):
        engine()
