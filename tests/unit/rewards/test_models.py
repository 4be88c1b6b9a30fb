"""Reward models of another family and tokenizer read the text anew, with a layout of their own."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import GPT2ForSequenceClassification, PreTrainedTokenizerBase

from tasks.engine.errors import ModelError
from tasks.language.batches import pad_batch
from tasks.language.classifier import save_reward_model
from tasks.language.models import ScalarModel
from tasks.language.reward_folder import check_scores
from tasks.records.records import Prompt
from tasks.rewards.config import RewardModelPart, RewardsConfig
from tasks.rewards.models import ModelReward, own_reward_models
from tasks.rewards.rewards import Answered, Rewards
from tests.unit import tiny
from tests.unit.tiny_models import runtime

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASKED = [
    Prompt(prompt_id="1", owner_id="o", text="what color is the cat ?"),
    Prompt(prompt_id="2", owner_id="o", text="User: is it red ?\nBot:", metadata={"turns": [["user", "is it red ?"]]}),
]
ANSWERS, FINISHED = ["red .", "not big"], [True, False]


def part(folder: Path, layout: str | None = None) -> RewardModelPart:
    values = {"name": "other", "kind": "reward_model", "weight": 1.0, "spread_penalty": 0.0, "prompt_layout": layout}
    return RewardModelPart.model_validate(values | {"folder": str(folder)})


def ours(folder: Path, tokenizer: PreTrainedTokenizerBase) -> ScalarModel:
    policy = tiny.gpt2(1, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, n_positions=64)
    model = ScalarModel.from_policy(policy, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.score_bias.fill_(0.7)
    save_reward_model(model, tokenizer, folder)
    return model


def theirs(folder: Path, tokenizer: PreTrainedTokenizerBase) -> GPT2ForSequenceClassification:
    config = tiny.gpt2(3, vocab_size=len(tokenizer), n_positions=96).config
    config.num_labels, config.pad_token_id = 1, tokenizer.pad_token_id
    model = GPT2ForSequenceClassification(config)
    tiny.spread(model, 4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def scores(model: ScalarModel, rows: list[tuple[list[int], list[int]]]) -> list[float]:
    with torch.no_grad():
        found: list[float] = model.scores(pad_batch([row[0] for row in rows], [row[1] for row in rows], 0)).tolist()
    return found


@pytest.mark.parametrize(("layout", "second"), [(None, "is it red ?"), ("Q: {prompt} A:", "Q: is it red ? A:")])
def test_ours_reads_the_request_in_its_own_layout(layout: str | None, second: str, tmp_path: Path) -> None:
    tokenizer = tiny.bpe_tokenizer()
    model = ours(tmp_path, tokenizer)
    first = "what color is the cat ?" if layout is None else "Q: what color is the cat ? A:"

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text)["input_ids"]
        return found

    expected = scores(model, [(ids(first), [*ids(" red ."), tokenizer.eos_token_id]), (ids(second), ids(" not big"))])
    found = ModelReward(part(tmp_path, layout), runtime()).score(ASKED, ANSWERS, FINISHED)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_model_in_a_folder_is_told_which_responses_ended(tmp_path: Path) -> None:
    ours(tmp_path, tiny.bpe_tokenizer())
    listed = {"parts": [part(tmp_path).model_dump()], "rule": "weights", "guard": None, "guard_below": None}
    rewards = Rewards(RewardsConfig.model_validate(listed), [], 0, runtime())
    alone = ModelReward(part(tmp_path), runtime())
    found = rewards(Answered(ASKED, ANSWERS, FINISHED, [[3]] * 2, [[4]] * 2)).total.tolist()
    assert found == alone.score(ASKED, ANSWERS, FINISHED).tolist()
    assert found != alone.score(ASKED, ANSWERS, [True, True]).tolist()


def test_somebody_elses_reads_the_conversation_as_its_template_writes_it(tmp_path: Path) -> None:
    tokenizer = tiny.bpe_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    model = theirs(tmp_path, tokenizer)
    expected = []
    for request, answer in (("what color is the cat ?", "red ."), ("is it red ?", "not big")):
        text = f"<|im_start|>user\n{request}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"  # by hand
        with torch.no_grad():
            expected.append(float(model(**tokenizer(text, return_tensors="pt")).logits[0, 0]))
    found = ModelReward(part(tmp_path), runtime()).score(ASKED, ANSWERS, FINISHED)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_what_stands_behind_an_answer_gets_no_token_that_opens_a_text(tmp_path: Path) -> None:
    """A tokenizer that begins every text with BOS begins a conversation with it, and not its answer once more."""
    tokenizer = tiny.bpe_tokenizer(bos_token="<eos>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    first = [("<eos>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<eos> $A", special_tokens=first)
    tokenizer.chat_template = CHATML
    model = theirs(tmp_path, tokenizer)
    text = "<|im_start|>user\nis it red ?<|im_end|>\n<|im_start|>assistant\nnot big<|im_end|>\n"
    ids = tokenizer(text, return_tensors="pt")
    assert ids["input_ids"][0, 0] == tokenizer.bos_token_id != ids["input_ids"][0, 1]
    with torch.no_grad():
        expected = float(model(**ids).logits[0, 0])
    found = ModelReward(part(tmp_path), runtime()).score(ASKED[1:], ANSWERS[1:], FINISHED[1:])
    assert found.tolist() == pytest.approx([expected], abs=1e-5)


def test_ours_with_a_chat_template_reads_the_answer_to_its_end_of_turn_and_a_layout_goes_before_it(
    tmp_path: Path,
) -> None:
    tokenizer = tiny.bpe_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    model = ours(tmp_path, tokenizer)

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text)["input_ids"]
        return found

    asked = [
        ids(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")
        for text in ("what color is the cat ?", "is it red ?")
    ]
    expected = scores(model, [(asked[0], ids("red .<|im_end|>")), (asked[1], ids("not big"))])
    assert ModelReward(part(tmp_path), runtime()).score(ASKED, ANSWERS, FINISHED).tolist() == pytest.approx(
        expected, abs=1e-6
    )
    plain = [(ids("Q: what color is the cat ? A:"), ids(" red .<eos>")), (ids("Q: is it red ? A:"), ids(" not big"))]
    found = ModelReward(part(tmp_path, "Q: {prompt} A:"), runtime()).score(ASKED, ANSWERS, FINISHED)
    assert found.tolist() == pytest.approx(scores(model, plain), abs=1e-6)


def test_an_ensembles_members_come_in_the_order_of_their_numbers_and_nothing_trains_them(tmp_path: Path) -> None:
    shop: Any = SimpleNamespace(inputs={}, input=lambda name: tmp_path / name, runtime=runtime())
    for number in (10, 2, 1):
        name = "reward_model" if number == 1 else f"reward_model_{number}"
        policy = tiny.gpt2(1)
        model = ScalarModel.from_policy(policy, torch.Generator().manual_seed(0))
        with torch.no_grad():
            model.score_bias.fill_(number)
        save_reward_model(model, tiny.word_tokenizer(), tmp_path / name / "model")
        shop.inputs[name] = None
    shop.inputs["reward_model-independent"] = None
    members = own_reward_models(shop)
    assert [member.score_bias.item() for member in members] == [1, 2, 10]
    assert not any(weights.requires_grad for member in members for weights in member.parameters())


def test_a_response_that_is_longer_than_what_the_model_reads(tmp_path: Path) -> None:
    ours(tmp_path, tiny.bpe_tokenizer())
    reward = ModelReward(part(tmp_path), runtime())
    with pytest.raises(
        ModelError, match=r"part other: a response has \d+ tokens of its tokenizer and the model reads 64"
    ):
        reward.score(ASKED[:1], ["café " * 40], [True])


def test_a_folder_without_a_head_is_told_before_a_run(tmp_path: Path) -> None:
    ours(tmp_path / "ours", tiny.bpe_tokenizer())
    config = tiny.gpt2(1).config
    config.num_labels, config.pad_token_id = 1, 0
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "theirs")
    for name in ("ours", "theirs"):
        check_scores(tmp_path / name, "ppo.rewards part other")
    config.num_labels = 2
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "classes")
    tiny.gpt2(1).save_pretrained(tmp_path / "policy")
    for name in ("classes", "policy"):
        with pytest.raises(ModelError, match=rf"^ppo\.rewards part other: .*{name} has no head of one output"):
            check_scores(tmp_path / name, "ppo.rewards part other")
    (tmp_path / "policy" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
        check_scores(tmp_path / "policy", "ppo.rewards part other")
