"""Measure one policy: its responses to the test prompts, what the judges say of them, and what it still knows."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.engine.memory import give_back
from tasks.engine.ranks import here
from tasks.language.inspect import context_of
from tasks.language.models import ScalarModel
from tasks.language.named_layout import laid_out
from tasks.language.seeds import named_generator
from tasks.language.speaker import Speaker
from tasks.language.text import decode_response, encode_prompt
from tasks.measure.benchmarks import Subject, document_losses, run_benchmarks, sequence_logprobs
from tasks.measure.config import MeasureConfig
from tasks.measure.few_shot import NOTHING, FewShot, few_shot
from tasks.measure.layouts import LAYOUTS
from tasks.measure.refusals import SCORER, read_refusal_prompts, refuses
from tasks.measure.safety import toxicity_scorer
from tasks.measure.scores import GoldLabeler, RewardModelJudge, RewardsJudge
from tasks.measure.suite.run import run_suite
from tasks.measure.suite.scoring import first_line
from tasks.measure.vocabularies import ReadsAnew, same_vocabulary
from tasks.measure.world_figures import asking_figures, group_figures, truth_figures, truthfulness_of
from tasks.records.data import PreparedData
from tasks.records.records import Prompt
from tasks.records.repeats import repeated
from tasks.results.best_of_n import best_of_n_estimate, best_of_n_kl, pick_best
from tasks.results.judge import Answers, ScoreJudge
from tasks.results.safety_figure import REFUSALS
from tasks.results.sheet import (
    GOLD,
    GREEDY,
    INDEPENDENT,
    OPPONENT,
    REWARD_MODEL,
    SAMPLED,
    BestOfPoint,
    PolicySheet,
    PromptSamples,
    Response,
    SafetyScores,
    Toxicity,
    best_of,
)
from tasks.rewards.rewards import Rewards
from tasks.sandbox.world import World

Progress = Callable[[str], None]
CANDIDATES = "candidates"
"""The set of responses that best-of-n chooses from."""


class Said(NamedTuple):
    """A set of responses, one to each prompt."""

    prompts: Sequence[Prompt]
    answers: Answers


class Yardsticks(NamedTuple):
    """What a policy is measured with: the policy its KL is taken to, and the reward models. Each is read when it is asked, and
    is gone before the next one is."""

    reference: Callable[[], PreTrainedModel] | None
    """None when its vocabulary is another: log-probabilities of different tokens do not compare."""
    reward: Callable[[], ScalarModel] | None
    tokenizer: PreTrainedTokenizerBase
    """Of the reward models and of the data."""
    rewards: Rewards | None = None
    """All parts of the reward that was optimised, where it is more than ``reward``."""
    independent: Callable[[], ScalarModel] | None = None
    """A reward model that nobody optimised."""
    world: World | None = None
    """The embedded world, whose gold labeler knows the truth."""


def evaluate_policy(
    name: str,
    subject: Subject,
    yardsticks: Yardsticks,
    data: PreparedData,
    config: MeasureConfig,
    *,
    baseline: bool,
    on_progress: Progress,
) -> PolicySheet:
    """Measure the policy ``subject``, called ``name`` (base, sft, ppo, ppo_ptx, or any other).

    The baseline (SFT) also draws its second set of responses, which every policy is compared with, and the candidates
    of best-of-n. ``on_progress`` is told the name of each part as it begins.
    """
    prompts = data.prompts_for_test()[: config.test_prompts]
    on_progress("responses")
    before = _before(subject, data, config)
    sampled = _answer(subject, prompts, config, config.temperature, SAMPLED, before)
    said = {SAMPLED: Said(prompts, sampled)}
    said[GREEDY] = Said(prompts, _answer(subject, prompts, config, 0.0, GREEDY, before))
    on_progress("baseline")
    if baseline:
        said[OPPONENT] = Said(prompts, _answer(subject, prompts, config, config.temperature, OPPONENT))
        if config.best_of_n and (yardsticks.reward or yardsticks.rewards) is not None:
            some = prompts[: config.best_of_n_prompts]
            repeated_prompts = [prompt for prompt in some for _ in range(max(config.best_of_n))]
            candidates = _answer(subject, repeated_prompts, config, config.temperature, "best of n")
            said[CANDIDATES] = Said(repeated_prompts, candidates)
    sets, curve = _judge(said, _judges(yardsticks, subject, config)), list[BestOfPoint]()
    if CANDIDATES in sets:
        picks, curve = _best_of_n(sets.pop(CANDIDATES), config)
        sets |= picks
    on_progress("benchmarks")
    benchmarks = run_benchmarks(subject, data.benchmarks(), config)
    suite = run_suite(subject, config)
    # The perplexity of other tokens is another quantity.
    comparable = same_vocabulary(subject.tokenizer, yardsticks.tokenizer)
    documents = data.documents("valid")[: config.perplexity_documents] if comparable else []
    on_progress("safety")
    toxicity, toxicity_figures = _toxicity(subject, data, config)
    truth = truthfulness_of(yardsticks.world, prompts, sets)

    def sample_again(asked: Sequence[Prompt]) -> list[Response]:
        again = Said(asked, _answer(subject, asked, config, config.temperature, SAMPLED, before))
        return _judge({SAMPLED: again}, [])[SAMPLED]

    return PolicySheet(
        name=name,
        temperature=config.temperature,
        kl=_kl(subject, yardsticks.reference, sampled, config.temperature),
        examples_before=before.fitting(sampled.prompts, _room(subject, config)) if before.examples else [],
        benchmarks=benchmarks | suite.benchmarks,
        documents=document_losses(subject, documents, config) if documents else None,
        toxicity=toxicity,
        truthfulness=truth,
        safety=[
            *toxicity_figures,
            *_refusals(subject, config, before),
            *truth_figures(truth, config),
            *asking_figures(prompts, sets),
            *group_figures(yardsticks.world, prompts, sets, sample_again),
            *suite.safety,
        ],
        best_of_curve=curve,
        samples=_by_prompt(prompts, sets, repeated([prompt.text for prompt in prompts], data.training_prompts())),
    )


def _answer(
    subject: Subject,
    prompts: Sequence[Prompt],
    config: MeasureConfig,
    temperature: float,
    use: str,
    before: FewShot = NOTHING,
) -> Answers:
    speaker = Speaker(*subject)
    encoded = [encode_prompt(subject.tokenizer, prompt.text, config.prompt_tokens) for prompt in prompts]
    texts = [prompt.text for prompt in prompts]
    asked = before.before(texts, encoded, subject.tokenizer, _room(subject, config)) if before != NOTHING else encoded
    tokens = speaker.answer(
        asked,
        max_new_tokens=config.response_tokens,
        temperature=temperature,
        generator=named_generator(config.seed, use, subject.model.device),
    )
    give_back()  # what sampling took; a network is read next
    return Answers(
        prompts=encoded,
        asked=asked,
        tokens=tokens,
        texts=[
            decode_response(subject.tokenizer, ids, prompt.text) for ids, prompt in zip(tokens, prompts, strict=True)
        ],
        finished=[speaker.ended(response) for response in tokens],
    )


def _before(subject: Subject, data: PreparedData, config: MeasureConfig) -> FewShot:
    """What comes before every test prompt: nothing, but for the base model behind examples."""
    if not config.few_shot.asked:
        return NOTHING
    examples = data.demonstrations("train") if config.few_shot.examples else []
    lengths = (config.prompt_tokens, config.response_tokens)
    return few_shot(config.few_shot, examples, subject.tokenizer, lengths, config.seed)


def _room(subject: Subject, config: MeasureConfig) -> int:
    """Tokens that the model reads before its response."""
    return (context_of(subject.model.config) or sys.maxsize) - config.response_tokens


def _judges(yardsticks: Yardsticks, subject: Subject, config: MeasureConfig) -> list[Callable[[], ScoreJudge]]:
    """Who gives every response a number; each is made when it is his turn."""
    pad = int(yardsticks.tokenizer.pad_token_id)
    own_tokens = same_vocabulary(subject.tokenizer, yardsticks.tokenizer)

    def of_tokens(judge: ScoreJudge) -> ScoreJudge:
        return judge if own_tokens else ReadsAnew(judge, yardsticks.tokenizer, config.prompt_tokens)

    def reward_model(name: str, load: Callable[[], ScalarModel]) -> ScoreJudge:
        return of_tokens(RewardModelJudge(name, load(), pad, subject.runtime))

    judges: list[Callable[[], ScoreJudge]] = []
    if yardsticks.rewards is not None:
        judges.append(partial(of_tokens, RewardsJudge(REWARD_MODEL, yardsticks.rewards)))
    elif yardsticks.reward is not None:
        judges.append(partial(reward_model, REWARD_MODEL, yardsticks.reward))
    if yardsticks.independent is not None:
        judges.append(partial(reward_model, INDEPENDENT, yardsticks.independent))
    return judges if yardsticks.world is None else [*judges, partial(GoldLabeler, GOLD, yardsticks.world)]


def _judge(said: Mapping[str, Said], judges: Sequence[Callable[[], ScoreJudge]]) -> dict[str, list[Response]]:
    """The same sets of responses with the scores of each judge, who is gone before the next one is made."""
    scores: dict[str, dict[str, list[float]]] = {use: {} for use in said}
    for ready in judges:
        judge = ready()
        for use, (prompts, answers) in said.items():
            scores[use][judge.name] = judge.score(prompts, answers)
        del judge
    return {
        use: [
            Response(
                text=answers.texts[row],
                finished=answers.finished[row],
                tokens=len(answers.tokens[row]),
                scores={name: found[row] for name, found in scores[use].items()},
            )
            for row in range(len(prompts))
        ]
        for use, (prompts, answers) in said.items()
    }


def _best_of_n(
    candidates: Sequence[Response], config: MeasureConfig
) -> tuple[dict[str, list[Response]], list[BestOfPoint]]:
    """Responses picked by the reward model for each n, and the curve over n = 1, 2, 4, ... of all candidates, which lie prompt
    by prompt."""
    count = max(config.best_of_n)
    names = list(candidates[0].scores)
    table = {
        name: np.array([c.scores[name] for c in candidates], dtype=np.float64).reshape(-1, count) for name in names
    }
    proxy = table[REWARD_MODEL]
    picks = {
        best_of(n): [candidates[row * count + int(best)] for row, best in enumerate(pick_best(proxy, n))]
        for n in config.best_of_n
    }
    sizes = sorted({2**power for power in range(count.bit_length()) if 2**power <= count} | set(config.best_of_n))
    curve = [
        BestOfPoint(
            n=n,
            kl=best_of_n_kl(n),
            scores={name: float(best_of_n_estimate(proxy, table[name], n).mean()) for name in names},
        )
        for n in sizes
    ]
    return picks, curve


def _kl(
    subject: Subject, reference: Callable[[], PreTrainedModel] | None, answers: Answers, temperature: float
) -> list[float] | None:
    """(prompts,) sum over tokens of log pi - log pi_ref on the policy's own samples: unbiased for the KL, nats.

    What comes before a prompt belongs to the policy; the reference reads the prompt alone.
    """
    if reference is None:
        return None
    own = sequence_logprobs(subject, answers.asked, answers.tokens, temperature)
    other = sequence_logprobs(subject._replace(model=reference()), answers.prompts, answers.tokens, temperature)
    return [mine - its for mine, its in zip(own, other, strict=True)]


def _toxicity(
    subject: Subject, data: PreparedData, config: MeasureConfig
) -> tuple[Toxicity | None, list[SafetyScores]]:
    """Scores of the continuations of bare prompts, and a figure for each prompt type.

    Continuations are greedy and end at their first newline, as every answer of the paper's suite (InstructGPT appendix D).
    """
    scorer = toxicity_scorer(config.toxicity, subject.runtime.device)
    prompts = data.toxicity_prompts()[: config.toxicity_prompts]
    if scorer is None or not prompts:
        return None, []
    scores, figures = {}, []
    for layout in config.toxicity.layouts:
        prefix = LAYOUTS[layout].prefix
        asked = [prompt.model_copy(update={"text": prefix + prompt.text}) for prompt in prompts]
        # An instruction takes no room from the prompt behind it, which is cut at its beginning.
        room = config.prompt_tokens + len(encode_prompt(subject.tokenizer, prefix, sys.maxsize))
        answers = _answer(subject, asked, config.model_copy(update={"prompt_tokens": room}), 0.0, GREEDY)
        # A service is asked by one rank.
        scores[layout] = here().once(partial(scorer.score, [first_line(text) for text in answers.texts]))
        told = {"measure": "toxicity", "layout": LAYOUTS[layout].told, "scorer": scorer.name, "unit": scorer.unit}
        figures.append(SafetyScores(**told, values=scores[layout]))
    bare = Toxicity(scorer=scorer.name, layout="the bait prompt alone (InstructGPT's 'basic')", scores=scores["basic"])
    return bare, figures


def _refusals(subject: Subject, config: MeasureConfig, before: FewShot) -> list[SafetyScores]:
    """Greedy answers to safe and to unsafe prompts that are refusals."""
    if config.refusal_prompts is None:
        return []
    rows = read_refusal_prompts(Path(config.refusal_prompts).expanduser())
    texts = laid_out([row.prompt for row in rows], config.prompt_layout, subject.tokenizer)
    asked = [Prompt(prompt_id=row.id, owner_id="refusals", text=text) for row, text in zip(rows, texts, strict=True)]
    answers = _answer(subject, asked, config, 0.0, GREEDY, before).texts
    figures = []
    for label, measure in REFUSALS.items():
        refused = [float(refuses(text)) for row, text in zip(rows, answers, strict=True) if row.label == label]
        told = {"measure": measure, "layout": "the prompt, greedy", "scorer": SCORER, "unit": "share"}
        metric = f"refusal/{{policy}}/{label}"
        figures += [SafetyScores(**told, metric=metric, interval="wilson", values=refused)] if refused else []
    return figures


def _by_prompt(
    prompts: Sequence[Prompt], sets: dict[str, list[Response]], repeats: Sequence[bool]
) -> list[PromptSamples]:
    return [
        PromptSamples(
            prompt_id=prompt.prompt_id,
            kind=prompt.kind,
            held_out=bool(prompt.metadata.get("held_out")),
            repeats=repeats[row],
            prompt=prompt.text,
            owner=prompt.owner_id,
            responses={decoding: rows[row] for decoding, rows in sets.items() if row < len(rows)},
        )
        for row, prompt in enumerate(prompts)
    ]
