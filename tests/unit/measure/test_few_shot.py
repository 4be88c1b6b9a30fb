"""The base model behind examples: what it reads, what of that the judges see, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from flows.ask.dry_run import page
from flows.config import load
from flows.instructgpt import instructgpt
from tasks.compare.compare import compare_sheets
from tasks.engine.errors import ConfigError
from tasks.measure.few_shot import NOTHING, FewShot, few_shot
from tasks.measure.few_shot_config import FewShotConfig
from tests.unit import tiny_models
from tests.unit.measure.test_policy_sheet import CONFIG, measure

TOKENIZER = tiny_models.tokenizer()
WORDS = tiny_models.WORDS
ROOM = 52  # a context of 64 less 12 tokens of response


def config_of(**changes: Any) -> FewShotConfig:
    return FewShotConfig.model_validate({"examples": 0, "file": None} | changes)


def asked_of(examples: int, **changes: Any) -> Any:
    return CONFIG.model_copy(update={"few_shot": config_of(examples=examples, **changes)})


def test_an_example_is_what_fine_tuning_reads_with_its_end() -> None:
    found = few_shot(config_of(examples=9), tiny_models.demonstrations(9), TOKENIZER, (24, 12), seed=1)
    sentences = {f"{one.prompt.text} {one.response} <eos>" for one in tiny_models.demonstrations(9)}
    assert {" ".join(WORDS[token] for token in example) for example in found.examples} == sentences
    again, other = (
        few_shot(config_of(examples=3), tiny_models.demonstrations(9), TOKENIZER, (24, 12), seed) for seed in (1, 2)
    )
    assert again.examples == found.examples[:3] or set(map(tuple, again.examples)) != set(map(tuple, other.examples))
    assert again != other
    assert few_shot(config_of(), [], TOKENIZER, (24, 12), 1) == NOTHING


def test_as_many_examples_as_fit_come_before_a_prompt_the_last_ones_first() -> None:
    shots = FewShot([[3] * 30, [4] * 20, [5] * 10], "")
    prompts = [[6], [6] * 13, [6] * 43]
    assert shots.fitting(prompts, 43) == [2, 2, 0]
    assert shots.before(["", "", ""], prompts, TOKENIZER, 43) == [
        [4] * 20 + [5] * 10 + [6],
        [4] * 20 + [5] * 10 + [6] * 13,
        [6] * 43,
    ]
    assert shots.fitting([[6] * 3], 63) == [3]
    with pytest.raises(
        ConfigError, match=r"no prompt leaves room for an example \(the last one has 10 tokens.*reads 12"
    ):
        shots.before([""], [[6] * 3], TOKENIZER, 12)


def test_a_text_comes_first_to_the_letter_or_is_refused() -> None:
    shots = FewShot([], "the cat is red . ")
    assert shots.before(["q : cat a :"], [[3]], TOKENIZER, 10) == [[7, 8, 6, 9, 13, 3, 5, 8, 4, 5]]
    with pytest.raises(
        ConfigError, match=r"few_shot.file: with it the longest prompt has 10 tokens, expected at most 9"
    ):
        shots.before(["q : cat a :"], [[3]], TOKENIZER, 9)


def test_a_file_is_read_by_content_and_an_empty_one_refused(tmp_path: Path) -> None:
    file = tmp_path / "prefix.txt"
    file.write_text("the cat\n")
    found = config_of(file=str(file))
    assert few_shot(found, [], TOKENIZER, (24, 12), 1).text == "the cat\n"
    before = found.fingerprint_fields()
    file.write_text("the dog\n")
    assert found.fingerprint_fields() != before
    file.write_text(" \n")
    with pytest.raises(ConfigError, match=r"prefix\.txt is empty"):
        few_shot(found, [], TOKENIZER, (24, 12), 1)
    with pytest.raises(ConfigError, match="cannot read /nowhere"):
        few_shot(config_of(file="/nowhere"), [], TOKENIZER, (24, 12), 1)
    with pytest.raises(ValidationError, match=r"examples is 2 and file is x; set examples=0"):
        config_of(file="x", examples=2)
    with pytest.raises(ConfigError, match="found 1 demonstrations, expected at least 2"):
        few_shot(config_of(examples=2), tiny_models.demonstrations(1), TOKENIZER, (24, 12), 1)


def test_the_sheet_has_other_answers_and_its_kl_is_that_of_the_model_behind_the_examples() -> None:
    bare, behind = measure("base", 4), measure("prompted", 4, asked=asked_of(2))
    assert [row.prompt for row in bare.samples] == [row.prompt for row in behind.samples]
    assert [r.text for r in bare.responses("greedy")] != [r.text for r in behind.responses("greedy")]
    assert behind.benchmarks == bare.benchmarks and behind.toxicity == bare.toxicity
    assert bare.examples_before == [] and max(behind.examples_before) == 2
    shots = few_shot(config_of(examples=2), tiny_models.demonstrations(9), TOKENIZER, (40, 24), CONFIG.seed)
    row, _ = next((row, n) for row, n in zip(behind.samples, behind.examples_before, strict=True) if n == 2)
    prompt = TOKENIZER(row.prompt)["input_ids"]
    said = row.responses["sampled"]
    answer = TOKENIZER(said.text)["input_ids"] + [tiny_models.EOS] * said.finished
    total = []
    for model, start in (
        (tiny_models.policy(4), [*shots.examples[0], *shots.examples[1], *prompt]),
        (tiny_models.policy(0), prompt),
    ):
        with torch.no_grad():
            table = model(torch.tensor([start + answer])).logits[0].log_softmax(-1)
        total.append(sum(table[len(start) + at - 1, token].item() for at, token in enumerate(answer)))
    assert behind.kl is not None
    assert behind.kl[behind.samples.index(row)] == pytest.approx(total[0] - total[1], abs=1e-4)


def test_the_comparison_has_the_row_and_how_many_examples_there_were() -> None:
    sheets = {"sft": measure("sft", 0, baseline=True), "prompted": measure("prompted", 4, asked=asked_of(2))}
    found = compare_sheets(sheets, CONFIG)
    assert found.metrics["examples_before/prompted"] == pytest.approx(
        sum(sheets["prompted"].examples_before) / len(sheets["prompted"].samples)
    )
    assert [row.title for row in found.rows if row.policy == "prompted"] == [
        "Base, prompted, T = 1",
        "Base, prompted, greedy",
    ]


def test_the_dry_run_says_what_the_row_is() -> None:
    text = " ".join(page(load(["evaluation.few_shot.examples=4"])).split())
    assert "prompted nothing is trained: the base model behind at most 4 demonstrations, measured once more" in text
    assert "prompted" not in page(load([]))


def test_the_row_is_asked_for_and_no_other_policy_is_asked_behind_examples() -> None:
    def stages(*overrides: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def run(task: Any, group: str, config: Any, about: str = "", **inputs: Any) -> str:
            name = f"{group}-{about}" if about else group
            found[name] = (config, inputs)
            return name

        instructgpt(load(list(overrides)), run)
        return found

    asked, plain = stages("evaluation.few_shot.examples=4"), stages()
    assert asked.keys() - plain.keys() == {"evaluation-prompted"}
    config, inputs = asked["evaluation-prompted"]
    assert config.few_shot.examples == 4 and inputs["policy"] == "pretrain"
    assert asked["evaluation"][1]["prompted"] == "evaluation-prompted"
    others = [name for name in plain if name.startswith("evaluation-")]
    assert others and all(asked[name][0] == plain[name][0] for name in others)
