"""Policies of a run debate their responses about the embedded world, before a judge who does not know all of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flows.debate.config import DebateConfig
from flows.run.rounds import data_of, of_last_round
from flows.tools.policies import find_policy
from tasks.engine.errors import ArtifactError, ConfigError, DataError
from tasks.engine.registry import artifacts_of
from tasks.language.conversation import context_of
from tasks.language.models import load_policy
from tasks.language.seeds import named_generator, named_random
from tasks.language.speaker import Speaker
from tasks.language.text import decode_response, encode_prompt
from tasks.language.tokenizer import load_tokenizer
from tasks.records.data import PreparedData
from tasks.records.records import Prompt
from tasks.results.debate import ARGUED, Argue, Setting, Side
from tasks.results.judge import FIRST, SECOND, Pair, PairVerdicts, Question, Verdict, judge_both_orders
from tasks.sandbox.beliefs import Reader, everything_about
from tasks.sandbox.gold import gold_score
from tasks.sandbox.labelers import NOISE, TIE_MARGIN, Panel
from tasks.sandbox.prompts import prompts
from tasks.sandbox.world import FILE, World

POLICY, SFT = "policy", "sft"
TRUTH = "control: both tell the truth"
Voice = Callable[[Sequence[str], str], list[tuple[str, bool]]]
"""Continues texts, given a name for the draw: what it says, and whether it ended by itself."""


class UnsureJudge:
    """Held-out labelers, one a prompt, who all know the same share of the facts."""

    name = "unsure labeler"

    def __init__(self, asked: Mapping[str, Prompt], reader: Reader, panel: Panel) -> None:
        self._asked, self._reader, self._panel = asked, reader, panel

    def judge(self, pairs: Sequence[Pair]) -> PairVerdicts:
        """Decide every pair, in both orders."""
        return judge_both_orders(self.name, lambda questions: [self._verdict(one) for one in questions], pairs)

    def _verdict(self, question: Question) -> Verdict:
        prompt, seed = self._asked[question.prompt], self._reader.seed
        first, second = (case.split(ARGUED) for case in (question.first, question.second))
        who = named_random(seed, f"debate/who/{prompt.text}").choice(self._panel.held_out)
        labeler = replace(who, world=self._reader.believes(prompt, [*first, *second]))

        def worth(response: str) -> float:  # the noise is the same with and without arguments, in both orders
            noise = named_random(seed, f"debate/noise/{prompt.text}/{response}").gauss(0.0, NOISE)
            return labeler.utility(prompt, response, True) + noise

        gap = worth(first[0]) - worth(second[0])
        return (gap > TIE_MARGIN) - (gap < -TIE_MARGIN)


def voice_of(folder: Path, config: DebateConfig) -> Voice:
    """A policy that responds, and argues by continuing a text; a long text loses its beginning.

    Raises:
        PlumblineError: no policy, or one that reads too little.
    """
    assert config.world is not None
    knobs, seed = config.world, config.seed
    model, tokenizer = load_policy(folder, config.runtime.device).eval(), load_tokenizer(folder)
    speaker, room = Speaker(model, tokenizer, config.runtime), context_of(model) - knobs.tokens
    if room < 1:
        raise ConfigError(f"world.tokens: found {knobs.tokens}, and {folder} reads {context_of(model)}; lower it")

    def says(texts: Sequence[str], name: str) -> list[tuple[str, bool]]:
        drawn = speaker.answer(
            [encode_prompt(tokenizer, text, room) for text in texts],
            max_new_tokens=knobs.tokens,
            temperature=knobs.temperature,
            generator=named_generator(seed, name, model.device),
        )
        both = zip(drawn, texts, strict=True)
        return [(decode_response(tokenizer, ids, text), speaker.ended(ids)) for ids, text in both]

    return says


def policies_argue(voices: Mapping[str, Voice], template: str) -> Argue:
    """Each side's own policy argues for it."""

    def argue(sides: Sequence[Side]) -> list[str]:
        said: dict[Side, str] = {}
        for name, voice in voices.items():
            mine = [side for side in sides if side.debater == name]
            texts = [side.filled(template).replace(ARGUED, " ") for side in mine]
            answers = voice(texts, f"debate/argument {mine[0].own.count(ARGUED)}/{name}")
            said |= {side: text for side, (text, _) in zip(mine, answers, strict=True)}
        return [said[side] for side in sides]

    return argue


def of_run(config: DebateConfig) -> Setting:
    """Responses of a run's policy and of its SFT policy to new prompts, both ended, where gold prefers one.

    Raises:
        PlumblineError: no such run, one with data of its own, or something of it is lost.
    """
    assert config.world is not None
    data, folders = _found(config)
    world, seed, knobs = World.read(data), config.seed, config.world
    used = PreparedData(data).training_prompts()
    drawn = prompts(world, knobs.prompts, seed, knobs.held_out_share, exclude=used)
    asked = {prompt.text: prompt for prompt in drawn if "subject" in prompt.metadata}
    voices = {name: voice_of(folder, config) for name, folder in folders.items()}
    answers = [voice(list(asked), f"debate/response/{name}") for name, voice in voices.items()]
    pairs, truth = list[Pair](), list[int]()
    for prompt, (one, ended), (other, other_ended) in zip(asked.values(), *answers, strict=True):
        gap = gold_score(world, prompt, one, ended).total - gold_score(world, prompt, other, other_ended).total
        if ended and other_ended and abs(gap) > TIE_MARGIN:
            pairs.append(Pair(prompt.prompt_id, prompt.text, one, other, (POLICY, SFT)))
            truth.append(FIRST if gap > 0 else SECOND)
    if not pairs:
        raise DataError(f"world.prompts: of {len(asked)} prompts, gold prefers neither response to any; ask more")
    facts = {text: everything_about(world, prompt.metadata["subject"]) for text, prompt in asked.items()}
    debaters: dict[str, Argue] = {
        "policy and SFT argue": policies_argue(voices, knobs.template),
        "control: both respond again": policies_argue(voices, "{prompt}"),
        TRUTH: lambda sides: [facts[side.prompt] for side in sides],
    }
    judge = UnsureJudge(asked, Reader.who_knows(knobs.knows, world, seed), Panel.of(world, seed))
    return Setting(pairs, truth, judge, debaters, TRUTH)


def _found(config: DebateConfig) -> tuple[Path, dict[str, Path]]:
    """The data of a run, and the folders of its policy and of its SFT policy."""
    assert config.run is not None
    run, tracking = config.run, config.tracking
    made = of_last_round(artifacts_of(tracking.uri, run))
    if "data_prep" not in made:
        raise ConfigError(
            f"run: {run} is no pipeline run in {tracking.uri}, expected the id that MLflow shows for a run of flows.rlhf"
        )
    store, named = tracking.open_store(), find_policy(run, tracking)
    data = store.find(*data_of(made).split("/"))
    if data is None or named.sft is None:
        raise ArtifactError(f"run: data or SFT policy of {run} is not in {store.root}; run that pipeline again")
    folder = store.open(data)
    if not (folder / FILE).is_file():
        raise ConfigError(f"run: {run} has data of its own, of which nobody knows the truth; give pairs=FILE instead")
    return folder, {POLICY: named.folder, SFT: named.sft}
