"""Talking in the terminal: layout, streaming, memory, comparison, on models of random weights."""

import argparse
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from flows import terminal
from flows.chat import Partner, answer_all, converse, main, partners_of
from flows.config import load
from flows.serve.respondent import Respondent
from flows.tools.policies import find_policy
from flows.tracking_config import TrackingConfig
from tasks.engine.artifacts import ArtifactRef
from tasks.engine.errors import ConfigError, ModelError
from tasks.language.chat_layout import Turn
from tasks.language.text import encode_prompt
from tests.unit.language.chat_templates import FAMILIES, chat_tokenizer


def model_folder(folder: Path, seed: int = 0, template: bool = True) -> Path:
    tokenizer = chat_tokenizer(FAMILIES["chatml"])
    if not template:
        tokenizer.chat_template = None
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def partner(folder: Path, **changes: object) -> Partner:
    settings: dict[str, object] = {"device": "cpu", "system": None, "temperature": 1.0, "tokens": 12, "seed": 3}
    return Partner(folder, **(settings | changes))  # type: ignore[arg-type]


def screen(typed: str = "") -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    console = terminal.console(written)
    lines = iter(typed.splitlines())

    def read(prompt: object = "", **_: object) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    console.input = read  # type: ignore[method-assign]
    return console, written


def test_the_model_reads_its_own_layout_and_the_whole_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []

    def draw(model: object, prompt: list[int], **_: object) -> list[int]:
        seen.append(list(prompt))
        return tokenizer("Yes?", add_special_tokens=False)["input_ids"]

    monkeypatch.setattr("tasks.language.generation.stream", draw)
    tokenizer = chat_tokenizer(FAMILIES["chatml"])
    talks = partner(model_folder(tmp_path))
    assert list(talks.answer("Hi"))[-1] == "Yes?"
    list(talks.answer("Bye"))
    assert seen[0] == encode_prompt(tokenizer, FAMILIES["chatml"].one_turn, 1000)
    assert seen[1] == encode_prompt(tokenizer, FAMILIES["chatml"].three_turns, 1000)


def test_answers_are_streamed_and_repeat_with_their_seed(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    first, again = (list(partner(folder).answer("Hi")) for _ in range(2))
    assert first == again != list(partner(folder, seed=4).answer("Hi"))
    assert len(first) > 3
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(first) if earlier.strip())


def test_a_long_conversation_loses_its_oldest_messages(tmp_path: Path) -> None:
    talks = partner(model_folder(tmp_path), temperature=0.0)
    for number in range(9):
        list(talks.answer(f"message {number} " + "x" * 40))
    assert len(talks.turns) < 18
    assert talks.turns[0].role == "user"
    assert talks.turns[-2].content.startswith("message 8")
    list(talks.answer("y" * 600))  # longer than the context alone
    assert talks.turns[-1].role == "assistant"


def test_a_model_of_bare_text_continues_the_message_and_takes_no_system_message(tmp_path: Path) -> None:
    talks = partner(model_folder(tmp_path, template=False))
    list(talks.answer("Hi"))
    list(talks.answer("Bye"))
    assert [turn.content for turn in talks.turns if turn.role == "user"] == ["Bye"]
    with pytest.raises(ConfigError, match="no chat template"):
        talks.set_system("Be kind.")


def test_answers_too_long_for_the_context_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reads 256"):
        partner(model_folder(tmp_path), tokens=256)
    unasked = partner(model_folder(tmp_path), tokens=None)
    list(unasked.answer("y" * 600))
    assert unasked.unread.endswith("; 128 fit beside an answer of --tokens 128")


def test_commands(tmp_path: Path) -> None:
    talks = partner(model_folder(tmp_path))
    console, written = screen("Hi\n/system Be kind.\nHello\n/what\n/reset\n")
    converse(console, [talks])
    assert talks.turns == []
    assert written.getvalue().count("a new conversation") == 2
    assert written.getvalue().count("/quit ends") == 2
    console, _ = screen("/quit\nnever read\n")
    converse(console, [talks])
    assert talks.turns == []


def test_two_policies_answer_side_by_side(tmp_path: Path) -> None:
    folders = [model_folder(tmp_path / name, seed) for seed, name in enumerate(("sft", "ppo"))]
    given = argparse.Namespace(compare=str(folders[0]), device="cpu", system=None, temperature=1.0, tokens=8, seed=1)
    both = partners_of(given, str(folders[1]), load([]).tracking)
    console, written = screen()
    answer_all(console, both, "Hi [bold]")
    assert [item.name for item in both] == ["sft", "ppo"]
    assert all(item.turns[0] == Turn("user", "Hi [bold]") and item.turns[1].content for item in both)
    assert "sft" in written.getvalue()


@pytest.mark.parametrize("name", ["nowhere", "models:/plumbline-policy@champion", "models:/plumbline-policy/3"])
def test_what_is_no_policy_is_said(tmp_path: Path, name: str) -> None:
    tracking = load([f"tracking.root={tmp_path}"]).tracking
    assert isinstance(tracking, TrackingConfig)
    given = argparse.Namespace(compare=None, device="cpu", system=None, temperature=1.0, tokens=8, seed=1)
    with pytest.raises(ConfigError, match="expected"):
        partners_of(given, name, tracking)


def test_a_foreign_folder_has_no_sft_of_its_own(tmp_path: Path) -> None:
    given = argparse.Namespace(compare="", device="cpu", system=None, temperature=1.0, tokens=8, seed=1)
    with pytest.raises(ConfigError, match="--compare FOLDER"):
        partners_of(given, str(model_folder(tmp_path)), load([]).tracking)


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("banana", "--device: found 'banana', expected cpu, cuda or cuda:N"),
        ("cuda:9", "--device: cuda:9 asked for, torch sees . GPUs; use --device cpu"),
    ],
)
def test_a_device_that_is_not_there(tmp_path: Path, device: str, sentence: str) -> None:
    given = argparse.Namespace(compare=None, device=device, system=None, temperature=1.0, tokens=8, seed=1)
    with pytest.raises(ConfigError, match=sentence):
        partners_of(given, str(model_folder(tmp_path)), load([]).tracking)


def test_a_policy_of_the_store_is_compared_with_the_sft_that_it_was_made_from(tmp_path: Path) -> None:
    tracking = load([f"tracking.root={tmp_path}"]).tracking
    store = tracking.open_store()

    def published(stage: str, fingerprint: str, seed: int, **parents: ArtifactRef) -> ArtifactRef:
        with store.publish(stage, fingerprint, parents, {}) as draft:
            model_folder(draft.folder / "policy", seed)
        assert draft.ref is not None
        return draft.ref

    published("sft", "another", 2)
    ours = published("sft", "ours", 1)
    released = published("release-ppo", "it", 3, sft=ours)
    policy = store.folder(released.stage, released.fingerprint) / "policy"
    for name in (policy, policy.parent):  # as the run prints it, and its artifact
        assert find_policy(str(name), tracking) == (policy, store.folder("sft", "ours") / "policy")
    elsewhere = load([f"tracking.root={tmp_path / 'elsewhere'}"]).tracking
    assert find_policy(str(policy), elsewhere).sft is None
    assert not (tmp_path / "elsewhere").exists()


def test_an_interrupted_answer_is_remembered_so_that_turns_alternate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(model: object, prompt: list[int], **_: object) -> Iterator[int]:
        yield from tokenizer("Yes", add_special_tokens=False)["input_ids"]
        raise KeyboardInterrupt  # Ctrl-C

    monkeypatch.setattr("tasks.language.generation.stream", draw)
    tokenizer = chat_tokenizer(FAMILIES["chatml"])
    talks = partner(model_folder(tmp_path))
    console, written = screen("Hi\nBye\n")
    converse(console, [talks])
    assert talks.turns == [Turn("user", "Hi"), Turn("assistant", "Yes"), Turn("user", "Bye"), Turn("assistant", "Yes")]
    assert written.getvalue().count("[interrupted]") == 2


def test_an_answer_without_a_word_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.language.generation.stream", lambda *_, **__: iter(()))
    console, written = screen("Hi\n")
    converse(console, [partner(model_folder(tmp_path))])
    assert "[ended without a word]" in written.getvalue()


def test_what_does_not_fit_the_context_is_told(tmp_path: Path) -> None:
    talks = partner(model_folder(tmp_path), temperature=0.0)
    console, written = screen("Hi\n" + "y" * 600 + "\n" + "x " * 100 + "\nHi\n")
    converse(console, [talks])
    long, oldest, both = (line for line in written.getvalue().splitlines() if "did not read" in line)
    assert long.startswith(f"{talks.name} did not read the beginning of the message: it has 6")
    assert long.endswith("; 244 fit beside an answer of --tokens 12")
    assert oldest and both


def test_a_message_that_is_no_text_and_a_system_message_that_nobody_takes_do_not_end_the_conversation(
    tmp_path: Path,
) -> None:
    talks = partner(model_folder(tmp_path, template=False))
    console, written = screen("caf\udce9\nHi\n/system Be kind.\n")
    converse(console, [talks])
    assert [turn.content for turn in talks.turns if turn.role == "user"] == ["Hi"]
    assert "found bytes that are not UTF-8" in written.getvalue()
    assert "found no chat template" in " ".join(written.getvalue().split())


def test_control_characters_of_an_answer_do_not_reach_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talks = partner(model_folder(tmp_path))
    monkeypatch.setattr(talks, "answer", lambda message: iter(["a\tb\n\x1b", "a\tb\n\x1b[2J\x0e\x9b"]))
    for partners in ([talks], [talks, talks]):
        console, written = screen()
        answer_all(console, partners, "Hi")
        assert not {"\x1b", "\x0e", "\x9b"} & set(written.getvalue())
        assert "\u241b[2J\u240e\u2421" in written.getvalue()


@pytest.mark.parametrize("temperature", ["nan", "inf", "1e-300", "-1"])
def test_temperatures_that_nothing_can_be_drawn_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], temperature: str
) -> None:
    monkeypatch.setattr("sys.argv", ["chat", "model=nowhere", "--temperature", temperature])
    with pytest.raises(SystemExit):
        main()
    assert f"--temperature: found {float(temperature)}, expected 0" in capsys.readouterr().err


def test_a_tokenizer_with_words_that_the_model_does_not_know(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(FAMILIES["chatml"])
    rows = len(tokenizer)
    folder = model_folder(tmp_path)
    tokenizer.add_tokens(["plumbline"])
    tokenizer.save_pretrained(folder)
    sentence = f"found {rows} rows in its embedding and .* ids up to {rows}, expected"
    with pytest.raises(ModelError, match=sentence):
        partner(folder)
    with pytest.raises(ModelError, match=sentence):
        Respondent(folder, "cpu", 1, 1)
