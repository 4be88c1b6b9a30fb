"""Drawing and choosing responses as a task; supervised fine-tuning then learns from them."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from tasks.engine.errors import NothingToLearn
from tasks.engine.stage import Metrics, Workshop
from tasks.language.models import ScalarModel, load_policy
from tasks.language.scorer import score_rows
from tasks.language.seeds import named_generator, named_random
from tasks.language.speaker import Speaker
from tasks.language.text import decode_response, encode_prompt
from tasks.records.choices import BEST, BY_LOT
from tasks.records.data import PreparedData, write_records
from tasks.records.records import Demonstration, Prompt
from tasks.rejection_sampling.config import SamplesConfig
from tasks.rejection_sampling.pick import Candidate, pick_best, pick_by_lot


def draw_samples(shop: Workshop, config: SamplesConfig) -> Metrics:
    """Sample the policy on RL prompts; write the reward model's choice, and as many responses chosen by lot.

    The artifact holds ``best/train.arrow`` and ``by_lot/train.arrow``: the same prompts with a response each.
    """
    data = PreparedData(shop.input("data"))
    tokenizer, device = data.tokenizer(), shop.runtime.device
    prompts = list(data.rl_prompts("train"))
    shop.uses(data.file("rl_prompts", "train"), "rl_prompts/train", len(prompts), "sampling")
    named_random(config.seed, "rejection_sampling/prompts").shuffle(prompts)
    prompts = prompts[: config.max_prompts]
    encoded = [encode_prompt(tokenizer, prompt.text, config.prompt_tokens) for prompt in prompts]
    repeated = [ids for ids in encoded for _ in range(config.samples_per_prompt)]
    speaker = Speaker(load_policy(shop.input("ppo_init") / "policy", device), tokenizer, shop.runtime)
    responses = speaker.answer(
        repeated,
        max_new_tokens=config.response_tokens,
        temperature=config.temperature,
        generator=named_generator(config.seed, "rejection_sampling/samples", device),
    )
    judge = ScalarModel.load(shop.input("reward_model") / "model", device).eval()
    scores = score_rows(judge, repeated, responses, speaker.pad_id, shop.runtime)
    groups = group(prompts, responses, scores, tokenizer, config.samples_per_prompt)
    lots = named_random(config.seed, "rejection_sampling/lots")
    best = [pick_best(candidates) for candidates in groups]
    by_lot = [pick_by_lot(candidates, lots) for candidates in groups]
    for name, chosen in ((BEST, best), (BY_LOT, by_lot)):
        write_records(shop.folder, name, "train", demonstrations(prompts, chosen, name))
    taken = [pick.score for pick in best if pick is not None]
    if not taken:
        raise NothingToLearn(
            f"{shop.stage}: none of the {len(responses)} responses to {len(prompts)} prompts ended within response_tokens "
            f"({config.response_tokens}), expected some: a response that was cut off would teach a wrong end; raise "
            "data_prep.response_tokens, or train ppo_init longer"
        )
    return {
        "samples/prompts": float(len(taken)),
        "samples/unanswered": float(len(prompts) - len(taken)),
        "samples/score_mean": sum(scores) / len(scores),
        "samples/score_best": sum(taken) / len(taken),
        "cost/samples": float(len(responses)),
        "cost/tokens_drawn": float(sum(map(len, responses))),
    }


def group(
    prompts: Sequence[Prompt],
    responses: Sequence[list[int]],
    scores: Sequence[float],
    tokenizer: PreTrainedTokenizerBase,
    per_prompt: int,
) -> list[list[Candidate]]:
    """The candidates of each prompt; ``responses`` and ``scores`` lie prompt by prompt."""
    eos = int(tokenizer.eos_token_id)
    groups = []
    for place, prompt in enumerate(prompts):
        rows = range(place * per_prompt, (place + 1) * per_prompt)
        texts = {row: decode_response(tokenizer, responses[row], prompt.text) for row in rows}
        groups.append(
            [Candidate(texts[row], scores[row], responses[row][-1] == eos and bool(texts[row].strip())) for row in rows]
        )
    return groups


def demonstrations(prompts: Sequence[Prompt], chosen: Sequence[Candidate | None], labeler: str) -> list[Demonstration]:
    """What fine-tuning reads; prompts without a usable response are left out."""
    return [
        Demonstration(prompt=prompt, response=pick.text, labeler_id=labeler)
        for prompt, pick in zip(prompts, chosen, strict=True)
        if pick is not None
    ]
