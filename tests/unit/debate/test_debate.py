"""Debates on the embedded world and of chat models, with planted debaters, and the command line around them."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from flows.debate import __main__ as command
from flows.debate import world as stage
from flows.debate.config import DebateConfig, parse_debate
from flows.debate.talk import of_pairs
from flows.debate.world import POLICY, SFT, TRUTH, UnsureJudge, policies_argue
from flows.tools.policies import NamedPolicy
from flows.tracking_config import TrackingConfig
from tasks.engine.errors import PlumblineError
from tasks.records.data import PreparedRecords, write_prepared_data
from tasks.records.records import Prompt
from tasks.results.debate import ARGUED, Argue, DebateEffect, Side, hold, weigh
from tasks.results.judge import FIRST, SECOND, Pair
from tasks.results.win_rate import Resampling
from tasks.sandbox import words
from tasks.sandbox.beliefs import Reader, everything_about
from tasks.sandbox.labelers import Panel
from tasks.sandbox.prompts import prompts
from tasks.sandbox.sentences import TEMPLATES
from tasks.sandbox.world import World
from tests.unit import tiny_models
from tests.unit.chat.chat_server import Reply, serving, texts

HOW = Resampling(0.95, 1_000, 1)
WORLD = World.from_seed(5)
ASKED = {one.text: one for one in prompts(WORLD, 1_500, 1, 0.35) if one.metadata["task"] == "person"}


def fact(prompt: Prompt, *, true: bool) -> str:
    subject, relation = prompt.metadata["subject"], prompt.metadata["relation"]
    values, value = words.VALUES[relation], WORLD.people[subject].facts[relation]
    told = value if true else values[(values.index(value) + 3) % len(values)]
    return f"{subject} {TEMPLATES[relation][0].format(told)} ."


PAIRS = [
    Pair(one.prompt_id, text, fact(one, true=row % 2 == 0), fact(one, true=row % 2 == 1), (POLICY, SFT))
    for row, (text, one) in enumerate(ASKED.items())
]
GOLD = [SECOND if row % 2 else FIRST for row in range(len(PAIRS))]


def same_lie(prompt: Prompt) -> str:
    relation = prompt.metadata["relation"]
    values, value = words.VALUES[relation], WORLD.people[prompt.metadata["subject"]].facts[relation]
    lie = TEMPLATES[relation][0].format(values[(values.index(value) + 5) % len(values)])
    return f"{prompt.metadata['subject']} {lie} ."


def debated(argue: Argue, knows: float) -> DebateEffect:
    judge = UnsureJudge(ASKED, Reader.who_knows(knows, WORLD, 1), Panel.of(WORLD, 1))
    alone, after = judge.judge(PAIRS).outcomes, judge.judge(hold(PAIRS, argue, 1)).outcomes
    return weigh(GOLD, alone, after, HOW)


def honest(sides: Sequence[Side]) -> list[str]:
    return [everything_about(WORLD, ASKED[side.prompt].metadata["subject"]) for side in sides]


def lying(sides: Sequence[Side]) -> list[str]:
    return [fact(ASKED[side.prompt], true=False) for side in sides]


def inventing(sides: Sequence[Side]) -> list[str]:
    return [same_lie(ASKED[side.prompt]) for side in sides]


def insisting(sides: Sequence[Side]) -> list[str]:
    return [side.own for side in sides]


def test_the_unsure_judge_gains_from_the_truth_and_loses_by_lies() -> None:
    assert len(PAIRS) > 150
    raised, lowered = debated(honest, 0.5), debated(lying, 0.5)
    assert raised.gain.low > 0.1 and raised.debated.estimate > 0.95 and raised.worse.estimate == 0
    assert lowered.gain.high < -0.1 and lowered.better.estimate == 0
    assert 0.6 < raised.alone.estimate < 0.9  # sure of half of the facts, and of the others by lot
    assert debated(insisting, 0.5).gain.estimate == 0  # two against two


@pytest.mark.parametrize("argue", [honest, lying, inventing])
def test_who_knows_everything_is_told_nothing(argue: Argue) -> None:
    found = debated(argue, 1.0)
    assert found.alone.estimate > 0.95 and found.better.estimate == found.worse.estimate == 0


def test_each_sides_own_policy_argues_for_it() -> None:
    asked: dict[str, list[str]] = {}

    def voice(name: str) -> Callable[[Sequence[str], str], list[tuple[str, bool]]]:
        def says(texts: Sequence[str], draw: str) -> list[tuple[str, bool]]:
            asked[draw] = list(texts)
            return [(f"{name}: {text}", True) for text in texts]

        return says

    argue = policies_argue({POLICY: voice("p"), SFT: voice("s")}, "{other} {own} {prompt}")
    told = hold([Pair("1", "q ?", "x", "y", (POLICY, SFT)), Pair("2", "q ?", "u", "v", (POLICY, SFT))], argue, 2)
    assert [pair.response for pair in told] == [
        f"x{ARGUED}p: y x q ?{ARGUED}p: y s: x y q ? x p: y x q ? q ?",
        f"u{ARGUED}p: v u q ?{ARGUED}p: v s: u v q ? u p: v u q ? q ?",
    ]
    assert asked["debate/argument 1/sft"][0] == "x p: y x q ? y s: x y q ? q ?"


def world_config(*overrides: str) -> DebateConfig:
    return parse_debate(["run=abc", "world.prompts=300", "bootstrap_samples=500", *overrides])


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """The data of a run, as far as debates read them."""
    folder = tmp_path / "data"
    WORLD.write((folder.mkdir(), folder)[1])
    write_prepared_data(folder, PreparedRecords(), tiny_models.tokenizer())
    return folder


def test_pairs_are_what_gold_tells_apart(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy tells the truth, SFT does so half of the time: gold prefers the policy wherever the two differ."""
    draws = random.Random(1)
    world = World.read(prepared)  # its people are in another order than those of a world that is new
    asked = {one.text: one for one in prompts(world, 300, 1, 0.35)}

    def voice_of(folder: Path, config: DebateConfig) -> Callable[[Sequence[str], str], list[tuple[str, bool]]]:
        def says(texts: Sequence[str], draw: str) -> list[tuple[str, bool]]:
            if "argument" in draw:
                return [("", True) for _ in texts]
            right = [everything_about(WORLD, asked[text].metadata["subject"]) for text in texts]
            return [(text if folder.name == POLICY or draws.random() < 0.5 else "who cares .", True) for text in right]

        return says

    monkeypatch.setattr(stage, "_found", lambda config: (prepared, {POLICY: Path(POLICY), SFT: Path(SFT)}))
    monkeypatch.setattr(stage, "voice_of", voice_of)
    setting = stage.of_run(world_config())
    about = [text for text, one in asked.items() if "subject" in one.metadata]
    assert 0.3 * len(about) < len(setting.pairs) < 0.7 * len(about)
    assert {pair.prompt for pair in setting.pairs} < set(about)
    assert setting.truth == [FIRST] * len(setting.pairs)
    assert list(setting.debaters)[2] == setting.control == TRUTH
    (told,) = hold(setting.pairs[:1], setting.debaters[TRUTH], 1)
    assert told.response == told.opponent.replace("who cares .", setting.pairs[0].response)


def test_a_policy_answers_and_argues_by_continuing(tmp_path: Path) -> None:
    tiny_models.policy().save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    config = world_config("world.tokens=5", "seed=2")
    says = stage.voice_of(tmp_path, config)
    once, again = says(["q : the cat ?", "the cat"], "x"), says(["q : the cat ?", "the cat"], "x")
    assert once == again != says(["q : the cat ?", "the cat"], "y")
    assert all(len(text.split()) <= 5 for text, _ in once)
    with pytest.raises(PlumblineError, match=r"world\.tokens: found 64, and .* reads 64; lower it"):
        stage.voice_of(tmp_path, world_config("world.tokens=64"))


ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"why {row} ?",
        "completion_a": f"good {row}",
        "completion_b": f"bad {row}",
        "labels": {"kim": "a", "lee": "a"},
    }
    if row % 2
    else {"prompt": f"why {row} ?", "completion_a": f"bad {row}", "completion_b": f"good {row}", "labels": {"kim": "b"}}
    for row in range(6)
]
SPLIT = {"prompt": "why ?", "completion_a": "x", "completion_b": "y", "labels": {"kim": "a", "lee": "b"}}


def pairs_file(folder: Path, rows: Sequence[dict[str, Any]]) -> str:
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"pairs={file}"


def honest_debater_and_believer(count: int, request: dict[str, Any]) -> Reply:
    """Argues for a good answer only; as judge it takes the first answer unless somebody argues for the other one alone."""
    if request["model"] == "debater":
        own = request["messages"][-1]["content"].split("[Your answer]\n")[1]
        return Reply("Mine is right." if own.startswith("good") else "I concede.")
    first, second = texts(request)
    return Reply("[[B]]" if "Mine is right." in second and "Mine is right." not in first else "[[A]]")


def chat_overrides(url: str, home: Path) -> list[str]:
    asked = ("debaters", "evaluation.judges.chat")
    models = ["debaters.model=debater", "evaluation.judges.chat.model=judge", f"tracking.root={home}"]
    return [*models, *(f"{knob}.{key}" for knob in asked for key in (f"base_url={url}", "api_key_env=null"))]


def test_chat_models_debate_before_a_chat_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "debates.jsonl"
    with serving(honest_debater_and_believer) as server:
        given = [pairs_file(tmp_path, [*ROWS, SPLIT]), f"transcripts={kept}", *chat_overrides(server.url, tmp_path)]
        command.main(given)
        asked = len(server.requests)
    shown = capsys.readouterr().out
    assert asked == 12 + 12 + 12  # both orders without arguments, two arguments a pair, both orders with them
    assert "alone: 6 of 6 pairs changed their winner with the order, position bias +1.00, 0 have no verdict" in shown
    assert "argues: 0 of 6 pairs changed their winner with the order" in shown
    assert "50.0 %" in shown and "100.0 %" in shown and "+50.0" in shown  # it minds the place; then it is convinced
    assert "No conclusion: 6 judged pairs, expected at least 100." in shown
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert lines[1] == {
        "debaters": "debater argues",
        "prompt": "why 1 ?",
        "first": f"good 1{ARGUED}Mine is right.",
        "second": f"bad 1{ARGUED}I concede.",
        "better": FIRST,
        "alone": 0.5,
        "debated": 1.0,
    }
    assert len(lines) == 6  # the pair on which people disagree is nobody's to win
    with pytest.raises(SystemExit, match=r"error: transcripts: .* exists"):
        command.main(given)


def test_a_debater_who_says_nothing_ends_it_in_a_sentence(tmp_path: Path) -> None:
    def silent(count: int, request: dict[str, Any]) -> Reply:
        return Reply(" " if request["model"] == "debater" else "[[C]]")

    with serving(silent) as server:
        overrides = [*chat_overrides(server.url, tmp_path), "debaters.retries=0"]
        setting = of_pairs(parse_debate([pairs_file(tmp_path, ROWS), *overrides]))
        with pytest.raises(
            PlumblineError, match=r"debaters: 1 of the sides are left without an argument \(no verdict in the answer"
        ):
            hold(setting.pairs, setting.debaters["debater argues"], 1)


CHAT = [
    "debaters.model=d",
    "evaluation.judges.chat.model=j",
    "debaters.api_key_env=null",
    "evaluation.judges.chat.api_key_env=null",
]


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["rounds=2"], "debate: found neither run nor pairs, expected one of them"),
        (["run=a", "pairs=b"], "debate: found run and pairs, expected one of them"),
        (["run=a", "debaters.model=d"], "debaters.model=d: nothing reads it with run=...; leave it out"),
        (["pairs=a", "world.knows=1", *CHAT], "world.knows=1: nothing reads it with pairs=...; leave it out"),
        (["pairs=a"], "debaters.model: no value"),
        (["pairs=a", "debaters.model=d"], "evaluation.judges.chat.model: no value"),
        (["pairs=a", "debaters.template=why", *CHAT], "debaters: template lacks {prompt}, {own}, {other}"),
        (
            ["pairs=a", "evaluation/judges=scores", "debaters.model=d"],
            "evaluation.judges.chat: found none, expected a chat model",
        ),
        (["pairs=nowhere.jsonl", *CHAT], "cannot read nowhere.jsonl (there is no such file)"),
        (
            ["run=a", "world.know=1"],
            "world.know: unknown key; did you mean world.knows? conf/debate.yaml has every key",
        ),
        (["run=a", "transcripts=nowhere/x"], "transcripts: nowhere/x exists, or its folder does not"),
        (["run=a"], "run: a is no pipeline run in sqlite:///"),
    ],
)
def test_what_cannot_be_debated_is_refused_in_a_sentence(tmp_path: Path, typed: list[str], sentence: str) -> None:
    with pytest.raises(SystemExit) as refused:
        command.main([*typed, f"tracking.root={tmp_path}"])
    assert str(refused.value).startswith("error: ") and sentence in str(refused.value)


def test_pairs_that_nobody_decides_are_refused(tmp_path: Path) -> None:
    given = [pairs_file(tmp_path, [SPLIT]), *CHAT, f"tracking.root={tmp_path}"]
    with pytest.raises(SystemExit, match="has 1 pairs, expected one at least that a majority decides"):
        command.main(given)


def test_data_of_ones_own_have_no_gold(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found where the run's artifacts are; the rest of a run is what every command asks for."""
    (prepared / "world.json").unlink()

    class Store:
        root = prepared

        def find(self, *key: str) -> str:
            return "/".join(key)

        def open(self, ref: str) -> Path:
            return prepared

    monkeypatch.setattr(stage, "artifacts_of", lambda uri, run: {"data_prep": "data_prep/1"})
    monkeypatch.setattr(stage, "find_policy", lambda run, tracking: NamedPolicy(prepared, prepared))
    monkeypatch.setattr(TrackingConfig, "open_store", lambda self: Store())
    with pytest.raises(
        PlumblineError, match="run: abc has data of its own, of which nobody knows the truth; give pairs=FILE"
    ):
        stage.of_run(world_config())
