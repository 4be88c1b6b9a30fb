"""Reward models as others open them: no code of ours, the same scores."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tasks.engine.config import AdapterConfig
from tasks.engine.errors import ModelError
from tasks.language.batches import pad_batch
from tasks.language.classifier import load_classifier, save_reward_model
from tasks.language.models import ScalarModel, load_policy
from tasks.language.tokenizer import add_pad_token
from tests.unit import tiny
from tests.unit.language import chat_templates

SHAPE: dict[str, Any] = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "bos_token_id": None,
    "eos_token_id": tiny.EOS,
    "pad_token_id": tiny.PAD,
}
ROWS = [[5, 9, 11, 2], [7, 2], [3, 14, 15, 9, 2, 6, 5], [8, 8, 13, 2]]


def qwen2(seed: int) -> PreTrainedModel:
    return tiny.spread(Qwen2ForCausalLM(Qwen2Config(**SHAPE)), seed)


def mistral(seed: int) -> PreTrainedModel:
    return tiny.spread(MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=None)), seed)


FAMILIES = {"llama": tiny.llama, "gpt2": tiny.gpt2, "qwen2": qwen2, "mistral": mistral}


def reward_model(policy: PreTrainedModel) -> ScalarModel:
    model = ScalarModel.from_policy(policy, torch.Generator().manual_seed(3))
    with torch.no_grad():
        model.head.bias.fill_(0.25)
        model.score_bias.fill_(-1.5)
    return model


def our_scores(model: ScalarModel) -> torch.Tensor:
    with torch.no_grad():
        return model.scores(pad_batch([row[:1] for row in ROWS], [row[1:] for row in ROWS], tiny.PAD))


def padded(side: str) -> dict[str, torch.Tensor]:
    width = max(map(len, ROWS))
    gaps = [[tiny.PAD] * (width - len(row)) for row in ROWS]
    ids = [gap + row if side == "left" else row + gap for gap, row in zip(gaps, ROWS, strict=True)]
    ones = [[0] * len(gap) + [1] * len(row) for gap, row in zip(gaps, ROWS, strict=True)]
    mask = ones if side == "left" else [line[::-1] for line in ones]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@pytest.mark.parametrize("family", FAMILIES)
def test_anyone_opens_a_reward_model_and_reads_our_scores(family: str, tmp_path: Path) -> None:
    model = reward_model(FAMILIES[family](0))
    save_reward_model(model, tiny.word_tokenizer(), tmp_path)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1).eval()
    ours = our_scores(model)
    assert ours.std() > 0.05  # rows differ, so that a wrong place in a row would show
    for side in ("right", "left"):
        batch = padded(side)
        if side == "left":  # positions of absolute embeddings, as generate() makes them
            batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        with torch.no_grad():
            theirs = opened(**batch).logits[:, 0]
        torch.testing.assert_close(theirs, ours, atol=1e-6, rtol=1e-6)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.pad_token_id == opened.config.pad_token_id == tiny.PAD
    together = tokenizer(["the cat", "the cat is red ."], padding=True, return_tensors="pt")
    with torch.no_grad():
        assert opened(**{name: together[name] for name in ("input_ids", "attention_mask")}).logits.shape == (2, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_we_read_back_the_very_weights(family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = reward_model(FAMILIES[family](1))
    save_reward_model(model, tiny.word_tokenizer(), tmp_path / "one")
    with caplog.at_level(logging.WARNING):
        again = ScalarModel.load(tmp_path / "one")
    assert not caplog.records  # what the classifier has beside the trunk is no news
    assert type(again.backbone) is type(model.backbone)
    mine, found = model.state_dict(), again.state_dict()
    assert mine.keys() == found.keys()
    assert all(torch.equal(mine[name], found[name]) for name in mine)
    save_reward_model(again, tiny.word_tokenizer(), tmp_path / "two")
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_what_others_pad_with_has_a_row(tmp_path: Path) -> None:
    """GPT-2's tokenizer has no pad token, and the one that is added lies behind its embedding."""
    tokenizer = tiny.bpe_tokenizer(pad_token="<eos>")
    add_pad_token(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    policy = tiny.gpt2(2, vocab_size=len(tokenizer) - 1, pad_token_id=None, eos_token_id=tokenizer.eos_token_id)
    model = reward_model(policy)
    save_reward_model(model, tokenizer, tmp_path)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1).eval()
    batch = AutoTokenizer.from_pretrained(tmp_path)(["the cat is red", "not"], padding=True, return_tensors="pt")
    assert int(batch["input_ids"].max()) == len(tokenizer) - 1 == opened.config.pad_token_id
    with torch.no_grad():
        theirs = opened(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
    rows = [tokenizer(text)["input_ids"] for text in ("the cat is red", "not")]
    with torch.no_grad():
        ours = model.scores(pad_batch([row[:1] for row in rows], [row[1:] for row in rows], 0))
    torch.testing.assert_close(theirs, ours, atol=1e-6, rtol=1e-6)


def test_a_family_without_room_for_the_constant_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = reward_model(tiny.spread(Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8)), 0))
    with caplog.at_level(logging.WARNING):
        save_reward_model(model, tiny.word_tokenizer(), tmp_path)
    assert "its scores are off by 1.75" in caplog.text
    assert torch.equal(our_scores(ScalarModel.load(tmp_path)), our_scores(model))


def test_what_was_trained_beside_weights_in_bf16_is_opened_in_full(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = reward_model(tiny.llama(0))
    adapter = AdapterConfig(rank=2, alpha=4, targets="all-linear", base="full", dropout=0.0, learning_rate_factor=1.0)
    model = base.trainable_copy(adapter, torch.Generator().manual_seed(4), "bf16")
    with caplog.at_level(logging.WARNING):
        save_reward_model(model, tiny.word_tokenizer(), tmp_path)
    assert not caplog.records  # the constant has its room; that training rounded is another matter
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1).eval()
    with torch.no_grad():
        theirs = torch.cat([opened(input_ids=torch.tensor([row])).logits[:, 0] for row in ROWS])
    torch.testing.assert_close(theirs, our_scores(ScalarModel.load(tmp_path)), atol=1e-6, rtol=1e-6)


def test_somebody_elses_reward_model_scores_here_as_it_does_there(tmp_path: Path) -> None:
    from transformers import LlamaForSequenceClassification

    config = tiny.llama(4).config
    config.num_labels = 1
    theirs = LlamaForSequenceClassification(config)
    tiny.spread(theirs, 5)
    theirs.save_pretrained(tmp_path)
    batch = padded("right")
    with torch.no_grad():
        expected = theirs(**batch).logits[:, 0]
    torch.testing.assert_close(our_scores(load_classifier(tmp_path, "cpu")), expected, atol=1e-6, rtol=1e-6)
    tiny.llama(4).save_pretrained(tmp_path / "policy")
    with pytest.raises(ModelError, match=r"lack 1 tensors .* first score\.weight"):
        load_classifier(tmp_path / "policy", "cpu")
    chat_templates.chat_tokenizer(chat_templates.FAMILIES["chatml"]).save_pretrained(tmp_path)
    settings = tmp_path / "config.json"
    tied = settings.read_text()
    assert '"tie_word_embeddings": true' in tied
    for text in (tied, tied.replace('"tie_word_embeddings": true', '"tie_word_embeddings": false')):
        settings.write_text(text)
        with pytest.raises(ModelError, match=r"found a reward model \(score\.weight .*expected a LlamaForCausalLM"):
            load_policy(tmp_path, "cpu")
