"""Drawing and choosing responses as a task; supervised fine-tuning then learns from them."""

import random
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.engine.caching import stage
from tasks.engine.config import RuntimeConfig
from tasks.engine.errors import NothingToLearn
from tasks.engine.stage import Metrics, Workshop
from tasks.language.batches import microbatches, pad_batch
from tasks.language.generation import generate
from tasks.language.models import ScalarModel, autocast, load_policy
from tasks.language.text import decode_response, encode_prompt
from tasks.records.data import PreparedData, write_records
from tasks.records.picks import BEST, BY_LOT
from tasks.records.records import Demonstration, Prompt
from tasks.rejection_sampling.config import SamplesConfig
from tasks.rejection_sampling.pick import Candidate, pick_best, pick_by_lot


@stage("rejection sampling", cpus=1, gpus=1)
def draw_samples(shop: Workshop, config: SamplesConfig) -> Metrics:
    """Sample the policy on RL prompts; write the reward model's choice, and as many responses chosen by lot.

    The artifact holds ``best/train.arrow`` and ``by_lot/train.arrow``: the same prompts with a response each.
    """
    data = PreparedData(shop.input("data"))
    tokenizer, device = data.tokenizer(), shop.runtime.device
    prompts = data.rl_prompts("train")
    shop.uses(data.file("rl_prompts", "train"), "rl_prompts/train", len(prompts), "sampling")
    random.Random(config.seed).shuffle(prompts)
    prompts = prompts[: config.max_prompts]
    encoded = [encode_prompt(tokenizer, prompt.text, config.prompt_tokens) for prompt in prompts]
    repeated = [ids for ids in encoded for _ in range(config.samples_per_prompt)]
    policy = load_policy(shop.input("ppo_init") / "policy", device).eval()
    responses = sample(policy, tokenizer, repeated, config, shop.runtime)
    judge = ScalarModel.load(shop.input("reward_model") / "model", device).eval()
    scores = scores_of(judge, repeated, responses, int(tokenizer.pad_token_id), shop.runtime)
    groups = group(prompts, responses, scores, tokenizer, config.samples_per_prompt)
    lots = random.Random(f"lots {config.seed}")
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


def sample(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    config: SamplesConfig,
    runtime: RuntimeConfig,
) -> list[list[int]]:
    """One response to each of ``prompts``, EOS included where it came."""
    with autocast(runtime):
        return generate(
            policy,
            list(prompts),
            max_new_tokens=config.response_tokens,
            temperature=config.temperature,
            generator=torch.Generator(device=policy.device).manual_seed(config.seed),
            eos_id=int(tokenizer.eos_token_id),
            pad_id=int(tokenizer.pad_token_id),
            batch_size=runtime.generation_batch,
        )


@torch.no_grad()
def scores_of(
    judge: ScalarModel,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    pad_id: int,
    runtime: RuntimeConfig,
) -> list[float]:
    """The reward model's score of each response, in their order."""
    device = next(judge.parameters()).device
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]
    scores = [0.0] * len(lengths)
    for rows in microbatches(lengths, runtime.tokens_per_microbatch):
        batch = pad_batch([prompts[row] for row in rows], [responses[row] for row in rows], pad_id).to(device)
        with autocast(runtime):
            found = judge.scores(batch).float().tolist()
        for row, score in zip(rows, found, strict=True):
            scores[row] = score
    return scores


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
