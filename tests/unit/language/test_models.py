import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

from tasks.engine.config import ArchitectureConfig, RuntimeConfig
from tasks.engine.errors import ModelError
from tasks.language.batches import pad_batch
from tasks.language.dropout import residual_dropout
from tasks.language.families import residual_branches, tokens_per_branch, trunk_of
from tasks.language.loading import REPORTER
from tasks.language.logprobs import response_logprobs
from tasks.language.models import ScalarModel, load_policy, new_causal_lm, save_policy
from tasks.language.precision import autocast
from tasks.language.tokenizer import add_pad_token, check_tokenizer, load_tokenizer
from tests.unit.families import build
from tests.unit.tiny import EOS, FAMILIES, bpe_tokenizer, gpt2, llama, word_tokenizer

ARCHITECTURE = ArchitectureConfig(
    hidden_size=64,
    layers=2,
    heads=4,
    intermediate_size=96,
    rope_theta=1000.0,
    embedding_std=0.3,
    projection_std=0.02,
    tie_embeddings=True,
)
PROMPTS, RESPONSES = [[5, 6, 7], [8]], [[9, 10, 2], [11, 12, 13, 14, 2]]
BATCH = pad_batch(PROMPTS, RESPONSES, 0)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# policies: save, load, build


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_policy_survives_the_round_trip(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family]()
    save_policy(model, word_tokenizer(), tmp_path)
    loaded = load_policy(tmp_path, "cpu")
    assert same(weights(model), weights(loaded))
    assert torch.equal(response_logprobs(loaded, BATCH, 1.0), response_logprobs(model, BATCH, 1.0))
    assert load_tokenizer(tmp_path).get_vocab() == word_tokenizer().get_vocab()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_policy_gives_the_same_bytes_wherever_it_came_from(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family]()
    save_policy(model, word_tokenizer(), tmp_path / "first")
    for name, source in (("second", tmp_path / "first"), ("third", tmp_path / "second")):
        save_policy(load_policy(source, "cpu"), load_tokenizer(source), tmp_path / name)
    assert content(tmp_path / "second") == content(tmp_path / "third") == content(tmp_path / "first")
    assert not any(str(tmp_path).encode() in data for data in content(tmp_path / "third").values())


def test_dropout_of_an_adopted_model_is_off_even_in_train_mode(tmp_path: Path) -> None:
    save_policy(gpt2(resid_pdrop=0.5, attn_pdrop=0.5, embd_pdrop=0.5), word_tokenizer(), tmp_path)
    model = load_policy(tmp_path, "cpu").train()
    assert torch.equal(response_logprobs(model, BATCH, 1.0), response_logprobs(model, BATCH, 1.0))


def test_half_precision_weights_are_loaded_as_fp32(tmp_path: Path) -> None:
    save_policy(llama().bfloat16(), word_tokenizer(), tmp_path)
    assert {param.dtype for param in load_policy(tmp_path, "cpu").parameters()} == {torch.float32}


def test_a_pad_token_outside_the_embedding_is_no_obstacle(tmp_path: Path) -> None:
    model = llama(vocab_size=len(word_tokenizer()))
    tokenizer = word_tokenizer()
    tokenizer.pad_token = None
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    assert tokenizer.pad_token_id == len(word_tokenizer())
    save_policy(model, tokenizer, tmp_path)
    loaded = load_policy(tmp_path, "cpu")
    batch = pad_batch(PROMPTS, RESPONSES, load_tokenizer(tmp_path).pad_token_id)
    assert torch.isfinite(response_logprobs(loaded, batch, 1.0)).all()


@pytest.mark.parametrize(
    ("before", "after"),
    [([513, EOS], [EOS, 513]), ([EOS, 513], [EOS, 513]), ([513, 514], EOS), (513, EOS), (None, EOS)],
)
def test_a_list_of_ends_stays_one(before: list[int] | int | None, after: list[int] | int, tmp_path: Path) -> None:
    """A chat model often ends at several tokens; whoever generates with it elsewhere must still stop at each."""
    model = llama()
    model.generation_config.eos_token_id = model.config.eos_token_id = before
    save_policy(model, word_tokenizer(), tmp_path)
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / name).read_text())["eos_token_id"] == after


def test_a_new_model_has_the_configured_deviations_and_is_reproducible() -> None:
    tokenizer = bpe_tokenizer()
    before = torch.get_rng_state()
    model = new_causal_lm(ARCHITECTURE, tokenizer, 32, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(weights(model), weights(new_causal_lm(ARCHITECTURE, tokenizer, 32, seed=1)))
    assert not same(weights(model), weights(new_causal_lm(ARCHITECTURE, tokenizer, 32, seed=2)))
    embedding = model.get_input_embeddings().weight
    assert embedding.std().item() == pytest.approx(0.3, rel=0.05)
    assert model.get_output_embeddings().weight is embedding
    others = torch.cat([p.flatten() for p in model.parameters() if p.ndim > 1 and p is not embedding])
    assert others.std().item() == pytest.approx(0.02, rel=0.05)
    assert all((p == 1).all() for p in model.parameters() if p.ndim == 1)
    config = model.config
    assert (config.eos_token_id, config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert config.max_position_embeddings == 32 and config.rope_parameters["rope_theta"] == 1000.0


def test_a_new_model_may_have_an_output_head_of_its_own() -> None:
    model = new_causal_lm(ARCHITECTURE.model_copy(update={"tie_embeddings": False}), bpe_tokenizer(), 32, seed=1)
    assert model.get_output_embeddings().weight.std().item() == pytest.approx(0.02, rel=0.05)


# what is refused


@pytest.fixture
def policy_folder(tmp_path: Path) -> Path:
    save_policy(llama(), word_tokenizer(), tmp_path)
    return tmp_path


def test_a_folder_without_config(policy_folder: Path) -> None:
    (policy_folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"found no config\.json.*check the path"):
        load_policy(policy_folder, "cpu")
    save_policy(llama(), word_tokenizer(), policy_folder / "policy")
    with pytest.raises(ModelError, match=r"found no config\.json.*there is one in .*/policy$"):
        load_policy(policy_folder, "cpu")


def test_what_transformers_reports_is_shown_where_the_model_is_taken_and_not_before_a_refusal(
    policy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(REPORTER, "callHandlers", lambda record: shown.append(record.getMessage()))
    weights = llama().state_dict()
    del weights["lm_head.weight"]
    save_file(weights | {"odd.weight": torch.ones(2)}, policy_folder / "model.safetensors", metadata={"format": "pt"})
    load_policy(policy_folder, "cpu")
    assert any("odd.weight" in message for message in shown)
    shown.clear()
    del weights["model.norm.weight"]
    save_file(weights, policy_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lack 1 tensors"):
        load_policy(policy_folder, "cpu")
    assert shown == []


def test_a_folder_without_tokenizer(policy_folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (policy_folder / name).unlink()
    with pytest.raises(ModelError, match=r"found no tokenizer, expected one of tokenizer\.json"):
        load_policy(policy_folder, "cpu")
    with pytest.raises(ModelError, match="found no tokenizer"):
        load_tokenizer(policy_folder)


def test_pickled_weights_are_refused(policy_folder: Path) -> None:
    torch.save(llama().state_dict(), policy_folder / "pytorch_model.bin")
    (policy_folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"only pickled weights \(pytorch_model\.bin\).*save_pretrained"):
        load_policy(policy_folder, "cpu")
    (policy_folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="found no weights"):
        load_policy(policy_folder, "cpu")


def test_missing_tensors_are_refused_not_invented(policy_folder: Path) -> None:
    model = llama().state_dict()
    del model["lm_head.weight"], model["model.layers.1.mlp.up_proj.weight"]
    save_file(model, policy_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"lack 1 tensors that LlamaForCausalLM needs, first model\.layers\.1\.mlp\.up"
    ):
        load_policy(policy_folder, "cpu")


def test_a_configuration_of_fewer_layers_than_the_weights_is_refused(policy_folder: Path) -> None:
    path = policy_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 1}))
    with pytest.raises(
        ModelError, match=r"have tensors of 2 layers, first model\.layers\.1\..*, expected 1, as config\.json"
    ):
        load_policy(policy_folder, "cpu")


def test_tensors_of_other_sizes_are_named(policy_folder: Path) -> None:
    path = policy_folder / "model.safetensors"
    weights = load_file(path)
    norm = weights["model.norm.weight"]
    save_file(weights | {"model.norm.weight": norm[:-1].clone()}, path, metadata={"format": "pt"})
    found = (
        rf"1 of its tensors has another size, first model\.norm\.weight \({len(norm) - 1}\), expected \({len(norm)}\)"
    )
    with pytest.raises(ModelError, match=found):
        load_policy(policy_folder, "cpu")


def test_cut_off_weights_are_refused(policy_folder: Path) -> None:
    path = policy_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ModelError, match="the model could not be loaded"):
        load_policy(policy_folder, "cpu")


def test_code_that_comes_with_a_model_is_refused(policy_folder: Path) -> None:
    (policy_folder / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "code.Config"}}')
    (policy_folder / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match="could not be loaded"):
        load_policy(policy_folder, "cpu")


def test_a_hub_name_without_network() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    for load in (lambda: load_policy("someone/some-model", "cpu"), lambda: load_tokenizer("someone/some-model")):
        with pytest.raises(ModelError, match=r"someone/some-model: .* could not be loaded .*give the folder"):
            load()


def test_a_model_that_is_no_decoder(tmp_path: Path) -> None:
    save_policy(llama(), word_tokenizer(), tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ModelError, match="could not be loaded"):
        load_policy(tmp_path, "cpu")


# tokenizers


@pytest.mark.point(9)
def test_check_tokenizer() -> None:
    tokenizer = word_tokenizer()
    check_tokenizer(tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    with pytest.raises(ModelError, match="pad token id 2 equal to the EOS id"):
        check_tokenizer(tokenizer)
    tokenizer.pad_token = None
    with pytest.raises(ModelError, match="found no pad token"):
        check_tokenizer(tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="found no EOS token"):
        check_tokenizer(tokenizer)


def test_a_pad_token_is_found_or_added() -> None:
    known = word_tokenizer()
    known.pad_token = known.eos_token
    add_pad_token(known)
    assert (known.pad_token, known.pad_token_id) == ("<pad>", 0)
    new = bpe_tokenizer(pad_token="<eos>")
    del_pad = new.backend_tokenizer.token_to_id("<pad>")
    assert del_pad is not None  # this vocabulary knows <pad>, so it is taken
    add_pad_token(new)
    assert new.pad_token_id == del_pad
    size = len(known)
    known.pad_token = known.eos_token
    known.backend_tokenizer.add_special_tokens(["<|pad|>"])
    add_pad_token(known)
    assert (known.pad_token, known.pad_token_id) == ("<|pad|>", size)
    check_tokenizer(known)


def test_a_tokenizer_that_pads_with_eos_is_mended_on_loading(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token == "<eos>"
    assert load_tokenizer(tmp_path).pad_token == "<pad>"


# scalar models


@pytest.mark.point(16)
def test_head_weights_have_deviation_one_over_root_of_width_plus_one() -> None:
    policy = llama()
    heads = [ScalarModel.from_policy(policy, torch.Generator().manual_seed(seed)).head for seed in range(200)]
    drawn = torch.cat([head.weight.flatten() for head in heads])
    assert drawn.std().item() == pytest.approx(1 / math.sqrt(17), rel=0.03)
    assert all(head.bias.item() == 0 for head in heads)


def scalar(family: str = "llama") -> ScalarModel:
    model = ScalarModel.from_policy(FAMILIES[family](), torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.head.bias.fill_(0.2)
        model.score_bias.fill_(0.7)
    return model


def by_definition(model: ScalarModel, row: int) -> Tensor:
    """Head minus bias at every position of one unpadded row."""
    states = model.backbone(torch.tensor([PROMPTS[row] + RESPONSES[row]])).last_hidden_state[0]
    return states @ model.head.weight[0] + 0.2 - 0.7


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
@pytest.mark.point(17)
def test_scores_and_values_read_the_right_positions(family: str) -> None:
    model = scalar(family)
    for row in range(2):
        expected, start = by_definition(model, row), len(PROMPTS[row]) - 1
        assert model.scores(BATCH)[row].item() == pytest.approx(expected[-1].item(), abs=1e-5)
        found = model.values(BATCH)[row]
        torch.testing.assert_close(found[: len(RESPONSES[row])], expected[start:-1], atol=1e-5, rtol=0)
        assert (found[len(RESPONSES[row]) :] == 0).all()


@torch.no_grad()
@pytest.mark.point(17)
def test_padding_does_not_change_scores() -> None:
    model = scalar()
    for pad in (0, 1, 10**6):
        wide = pad_batch([*PROMPTS, [5]], [*RESPONSES, [6] * 20], pad)
        torch.testing.assert_close(model.scores(wide)[:2], model.scores(BATCH), atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.point(25)
def test_left_padding_gives_the_same_scores() -> None:
    """The other layout that public implementations use, with mask and positions, straight through the backbone."""
    model = scalar("gpt2")
    width = max(len(p) + len(r) for p, r in zip(PROMPTS, RESPONSES, strict=True))
    rows = [p + r for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    positions = mask.cumsum(1) - mask
    states = model.backbone(ids, attention_mask=mask, position_ids=positions).last_hidden_state[:, -1]
    torch.testing.assert_close(model.head(states).squeeze(1) - 0.7, model.scores(BATCH), atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_value_before_a_last_token_is_the_score_of_the_text_without_it() -> None:
    model = scalar()
    shorter = pad_batch(PROMPTS, [response[:-1] for response in RESPONSES], 0)
    last = torch.tensor([len(response) - 1 for response in RESPONSES])
    found = model.values(BATCH)[torch.arange(2), last]
    torch.testing.assert_close(found, model.scores(shorter), atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_scalar_model_survives_the_round_trip_byte_for_byte(tmp_path: Path) -> None:
    model = scalar()
    model.save(tmp_path / "first")
    loaded = ScalarModel.load(tmp_path / "first")
    assert same(weights(model), weights(loaded))
    assert torch.equal(loaded.scores(BATCH), model.scores(BATCH))
    loaded.save(tmp_path / "second")
    assert content(tmp_path / "first") == content(tmp_path / "second")


def test_a_scalar_model_shares_nothing_with_its_policy(policy_folder: Path) -> None:
    policy = load_policy(policy_folder, "cpu")
    model = ScalarModel.from_policy(policy, torch.Generator())
    assert not {p.data_ptr() for p in policy.parameters()} & {p.data_ptr() for p in model.parameters()}
    from_folder = ScalarModel.from_policy(policy_folder, torch.Generator())
    assert same(weights(from_folder.backbone), weights(model.backbone))


def test_a_policy_is_no_scalar_model(policy_folder: Path) -> None:
    with pytest.raises(ModelError, match="expected a reward model"):
        ScalarModel.load(policy_folder)


# dropout and precision


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_residual_dropout_acts_only_in_its_context(family: str) -> None:
    model = FAMILIES[family]()
    expected = response_logprobs(model, BATCH, 1.0)

    def dropped(seed: int) -> Tensor:
        with residual_dropout(model, 0.5, torch.Generator().manual_seed(seed)):
            return response_logprobs(model, BATCH, 1.0)

    before = torch.get_rng_state()
    assert torch.equal(dropped(1), dropped(1))
    assert not torch.equal(dropped(1), dropped(2)) and not torch.equal(dropped(1), expected)
    assert torch.equal(response_logprobs(model, BATCH, 1.0), expected)
    assert torch.equal(torch.get_rng_state(), before)
    with residual_dropout(model, 0.0, torch.Generator()):
        assert torch.equal(response_logprobs(model, BATCH, 1.0), expected)


@torch.no_grad()
@pytest.mark.point(12)
def test_residual_dropout_drops_the_given_share_and_keeps_the_mean() -> None:
    model = llama(num_hidden_layers=1)
    outputs: list[Tensor] = []

    def record(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        outputs.append(output)

    mlp = model.model.layers[0].mlp
    mlp.register_forward_hook(record)  # before the context's hook: what the branch said
    with residual_dropout(model, 0.2, torch.Generator().manual_seed(0)):
        mlp.register_forward_hook(record)  # after it: what is added to the residual stream
        response_logprobs(model, pad_batch([[5]] * 200, [[6] * 20] * 200, 0), 1.0)
    said, added = outputs
    dropped = added == 0
    assert dropped.float().mean().item() == pytest.approx(0.2, abs=0.01)
    torch.testing.assert_close(added[~dropped], said[~dropped] / 0.8)


def test_a_reward_model_reads_last_states_that_are_narrower_than_the_others() -> None:
    config = OPTConfig(
        vocab_size=40, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=8
    )
    model = ScalarModel.from_policy(OPTForCausalLM(config).eval(), torch.Generator().manual_seed(0))
    assert model.scores(BATCH).shape == (2,)


def test_logits_that_are_changed_behind_the_head_are_refused(tmp_path: Path) -> None:
    config = RecurrentGemmaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, lru_width=16
    )
    torch.manual_seed(0)
    model = RecurrentGemmaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20.0)  # the bound of this family's logits is felt where they are large
    save_policy(model, word_tokenizer(), tmp_path)
    with pytest.raises(ModelError, match="RecurrentGemmaForCausalLM changes its logits behind the output head"):
        load_policy(tmp_path, "cpu")


def test_residual_dropout_of_an_unknown_family() -> None:
    config = BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2)
    with (
        pytest.raises(ModelError, match="residual dropout"),
        residual_dropout(BloomForCausalLM(config), 0.2, torch.Generator()),
    ):
        pass


@torch.no_grad()
def test_residual_dropout_of_opt_is_on_attention_and_the_second_matrix_of_the_mlp() -> None:
    model = build("opt")
    layers = model.model.decoder.layers
    assert residual_branches(model) == [part for layer in layers for part in (layer.self_attn, layer.fc2)]
    assert tokens_per_branch(trunk_of(model), BATCH) == [int(BATCH.lengths.max() - 1) * len(BATCH.lengths)] * 4
    with residual_dropout(model, 0.5, torch.Generator().manual_seed(1)):
        dropped = response_logprobs(model, BATCH, 1.0)
    assert not torch.equal(dropped, response_logprobs(model, BATCH, 1.0))


def runtime(precision: str) -> RuntimeConfig:
    return RuntimeConfig.model_validate(
        {
            "device": "cpu",
            "precision": precision,
            "frozen_precision": "fp32",
            "gradient_checkpointing": False,
            "threads": 1,
            "processes": 1,
            "shard": "none",
            "tokens_per_microbatch": 100,
            "generation_batch": 4,
            "runner": "threads",
            "ray_address": None,
            "max_workers": 1,
            "checkpoint_every": 1,
            "checkpoint_minutes": 60,
            "stop_seconds": 5,
            "debug": False,
            "progress": False,
        }
    )


@torch.no_grad()
def test_bf16_changes_the_products_and_not_the_weights() -> None:
    model: PreTrainedModel = llama()
    expected = response_logprobs(model, BATCH, 1.0)
    with autocast(runtime("fp32")):
        assert torch.equal(response_logprobs(model, BATCH, 1.0), expected)
    with autocast(runtime("bf16")):
        found = response_logprobs(model, BATCH, 1.0)
        scores = scalar().scores(BATCH)
    assert found.dtype == scores.dtype == torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0)
    assert {param.dtype for param in model.parameters()} == {torch.float32}


def test_gpt2_config_knows_its_dropouts() -> None:
    """The names that switching dropout off relies on."""
    assert {"resid_pdrop", "embd_pdrop", "attn_pdrop"} <= GPT2Config().to_dict().keys()
