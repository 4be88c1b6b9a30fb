"""Golden numbers of the shared mathematics (computed elsewhere, in float64)."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tasks.engine.config import AdamConfig
from tasks.language.batches import pad_batch
from tasks.language.generation import truncate_after_eos
from tasks.language.logprobs import entropy_of, kl_k1, kl_k2, kl_k3, log_probs_of, response_logprobs
from tasks.language.masked import masked_mean, scale_to_unit_variance, whiten
from tasks.language.models import ScalarModel
from tasks.language.optimization import Ema, cosine_to_fraction, linear_warmup, make_adamw
from tests.golden.cases import case, close
from tests.unit.tiny import llama


def doubles(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_whitening() -> None:
    golden = case("whitening")
    x, mask = doubles(golden["inputs"]["x"]), torch.tensor(golden["inputs"]["mask"])
    for name, chosen in (("full", torch.ones_like(mask)), ("masked", mask)):
        outputs = golden["outputs"]
        close(whiten(x, chosen), outputs[f"{name}_biased_shift"], golden)
        close(scale_to_unit_variance(x, chosen), outputs[f"{name}_biased_noshift"], golden)
    close(whiten(x, mask, unbiased=True), golden["outputs"]["masked_unbiased_shift"], golden)
    full = torch.ones_like(mask)
    close(scale_to_unit_variance(x, full, unbiased=True), golden["outputs"]["full_unbiased_noshift"], golden)


@pytest.mark.point(48)
def test_kl_estimators() -> None:
    golden = case("kl_estimators")
    policy, reference = doubles(golden["inputs"]["logp_policy"]), doubles(golden["inputs"]["logp_ref"])
    mask = torch.tensor(golden["inputs"]["mask"])
    for name, estimate in (("k1", kl_k1), ("k2", kl_k2), ("k3", kl_k3)):
        found = estimate(policy, reference)
        close(found, golden["outputs"][name], golden)
        close(masked_mean(found, mask), golden["outputs"]["masked_token_mean"][name], golden)
    per_sequence = (kl_k1(policy, reference) * mask).sum(dim=1)
    close(per_sequence, golden["outputs"]["sequence_kl_k1"], golden)


@pytest.mark.point(48)
def test_kl_estimators_exact() -> None:
    golden = case("kl_estimators_exact")
    p, q = doubles(golden["inputs"]["p"]), doubles(golden["inputs"]["q"])
    for name, estimate in (("E_k1", kl_k1), ("E_k2", kl_k2), ("E_k3", kl_k3)):
        close((p * estimate(p.log(), q.log())).sum(), golden["outputs"][name], golden)
    assert golden["outputs"]["E_k1"] == golden["outputs"]["exact_kl"] != golden["outputs"]["E_k2"]


@pytest.mark.point(32)
def test_logprob_temperature() -> None:
    golden = case("logprob_temperature")
    logits, labels = doubles(golden["inputs"]["logits"]), torch.tensor(golden["inputs"]["labels"])
    for temperature in (1.0, 0.7):
        expected = golden["outputs"][f"T={temperature}"]
        close(log_probs_of(logits, labels, temperature), expected["logprob"], golden)
        close(entropy_of(logits, temperature), expected["entropy"], golden)


@pytest.mark.point(28)
def test_truncate_and_eos() -> None:
    golden = case("truncate_and_eos")
    inputs, outputs = golden["inputs"], golden["outputs"]
    truncated = [truncate_after_eos(response, inputs["eos_id"]) for response in inputs["responses"]]
    assert [len(response) for response in truncated] == outputs["response_length"]
    assert [response + [inputs["pad_id"]] * (5 - len(response)) for response in truncated] == outputs["truncated"]
    assert [response[-1] == inputs["eos_id"] for response in truncated] == [bool(x) for x in outputs["contains_eos"]]


class _Positions(nn.Module):
    """A trunk and head that say at which position they stand: state (i, 1) at position i."""

    config = SimpleNamespace(model_type="positions")  # a family that nobody knows is padded

    def forward(self, input_ids: Tensor, **_: object) -> object:
        where = torch.arange(input_ids.shape[1], dtype=torch.float32).expand(input_ids.shape)
        return type("Output", (), {"last_hidden_state": torch.stack([where, torch.ones_like(where)], dim=-1)})()


@pytest.mark.point(30)
def test_indexing_of_values() -> None:
    golden = case("indexing")
    prompt_width, response_width = golden["inputs"]["P"], golden["inputs"]["R"]
    model = ScalarModel.from_policy(llama(), torch.Generator().manual_seed(0))
    model.backbone, model.head = _Positions(), nn.Linear(2, 1)  # type: ignore[assignment]
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[1.0, 0.0]]))
        model.head.bias.zero_()
    batch = pad_batch([[9] * prompt_width, [9]], [[8] * response_width, [8] * (response_width + 4)], 0)
    assert model.values(batch)[0, :response_width].tolist() == golden["outputs"]["value_indices"]
    assert model.scores(batch)[0].item() == golden["outputs"]["terminal_value_index"]


@pytest.mark.point(30)
def test_indexing_of_logits() -> None:
    """Each response token's log-probability moves with the logits at exactly the golden position."""
    golden = case("indexing")
    prompt_width, response_width = golden["inputs"]["P"], golden["inputs"]["R"]
    model = llama()
    batch = pad_batch([[5, 6, 7][:prompt_width]], [[8, 9, 10, 11, 12][:response_width]], 0)
    logits = model(batch.input_ids).logits[0].double()
    found = response_logprobs(model, batch, 1.0)[0]
    for t, (position, token) in enumerate(
        zip(golden["outputs"]["logit_indices"], golden["outputs"]["token_indices"], strict=True)
    ):
        expected = torch.log_softmax(logits[position], dim=-1)[batch.input_ids[0, token]]
        assert abs(found[t].item() - expected.item()) < 1e-5


@pytest.mark.parametrize(("placement", "key"), [("after_correction", "pytorch"), ("before_correction", "tensorflow")])
@pytest.mark.point(55)
def test_adam_epsilon(placement: Any, key: str) -> None:
    golden = case("adam_epsilon")
    inputs = golden["inputs"]
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = make_adamw(
        [weight],
        AdamConfig(
            learning_rate=inputs["lr"],
            beta1=inputs["beta1"],
            beta2=inputs["beta2"],
            epsilon=inputs["eps"],
            epsilon_placement=placement,
            weight_decay=0.0,
            max_grad_norm=1.0,
        ),
    )
    for gradient, expected in zip(inputs["grads"], golden["outputs"][key], strict=True):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        close(weight[0], expected, golden)


@pytest.mark.point(54)
def test_ema_weights() -> None:
    golden = case("ema_weights")
    model = nn.Linear(1, 1, bias=False)
    found = []
    for index, weight in enumerate(golden["inputs"]["weights"]):
        with torch.no_grad():
            model.weight.fill_(weight)
        if index == 0:
            ema = Ema(model, golden["inputs"]["decay"])
        else:
            ema.update(model)
        found.append(ema.state_dict()["weight"].item())
    assert max(abs(a - b) for a, b in zip(found, golden["outputs"]["ema"], strict=True)) < 5e-7  # averages are fp32


@pytest.mark.point(11, 53)
def test_lr_schedules() -> None:
    golden = case("lr_schedules")
    steps = golden["inputs"]["S"]
    for stage in ("sft", "rm"):
        for step, expected in golden["outputs"][stage].items():
            close(golden["inputs"][f"{stage}_peak"] * cosine_to_fraction(int(step), steps), expected, golden)
    for iteration, expected in enumerate(golden["outputs"]["rl_multiplier"]):
        close(linear_warmup(iteration), expected, golden)
