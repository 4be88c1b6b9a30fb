"""Collecting comparisons as tasks: responses are drawn, and then ranked."""

from collections.abc import Sequence

from tasks.comparisons.collect import Collected, Drawn, collect, draw, take_given
from tasks.comparisons.config import SamplingConfig
from tasks.comparisons.disputed import disputed_share, most_disputed, overrated, scores_of
from tasks.comparisons.drawn import read_drawn, write_drawn
from tasks.comparisons.job import ComparisonsJob, SamplingJob
from tasks.comparisons.labelers.hired import Surroundings, labeler
from tasks.comparisons.labelers.labeler import Labeler
from tasks.comparisons.sample import Candidates, completions_per_prompt, keep
from tasks.engine.errors import AwaitingLabels, DataError
from tasks.engine.fingerprint import dependencies, fingerprint
from tasks.engine.stage import Metrics, Workshop
from tasks.language.models import ScalarModel, load_policy
from tasks.language.readable import reader
from tasks.records.comparison_sets import read_comparisons, write_comparisons
from tasks.records.data import PreparedData, Split
from tasks.records.records import Prompt
from tasks.sandbox.labelers import Panel
from tasks.sandbox.world import World

JUDGES = ("optimised", "held_out")
"""Inputs: the reward model that the policy was optimised against, and one that nothing was optimised against."""


def sample_responses(shop: Workshop, job: SamplingJob) -> Metrics:
    """Sample K responses per prompt from a policy and keep them, for labelers whose rankings come later or cost something.

    With the inputs ``optimised`` and ``held_out``, two reward models, the training prompts keep the responses that these dispute.
    """
    disputed: dict[str, float] = {}
    with shop.progress(1, "set") as bar:
        drawn = dict(_drawn(shop, job.sampling, job.round, job.seed(job.sampling.seed), job.policy))
        if job.sampling.selection == "adversarial":
            drawn["train"], disputed = _selected(shop, job, drawn["train"])
        write_drawn(shop.folder, drawn)
        bar.update()
    return {f"candidates/{split}": float(len(candidates)) for split, candidates in drawn.items()} | disputed


def _selected(
    shop: Workshop, job: SamplingJob, drawn: Sequence[Candidates]
) -> tuple[list[Candidates], dict[str, float]]:
    """K of the responses to each prompt, and which share of their pairs is disputed before and after."""
    tokenizer = PreparedData(shop.input("data")).tokenizer()
    models = [ScalarModel.load(shop.input(name) / "model", shop.runtime.device).eval() for name in JUDGES]
    found = [scores_of(model, drawn, tokenizer, job.sampling, shop.runtime) for model in models]
    counts = completions_per_prompt(len(drawn), job.sampling, job.seed(job.sampling.seed))
    places = [most_disputed(gaps, count) for gaps, count in zip(overrated(*found), counts, strict=True)]
    kept = [keep(one, chosen) for one, chosen in zip(drawn, places, strict=True)]
    after = [[[row[place] for place in chosen] for row, chosen in zip(rows, places, strict=True)] for rows in found]
    return kept, {
        "candidates/disputed_drawn": disputed_share(*found),
        "candidates/disputed_kept": disputed_share(*after),
    }


def collect_comparisons(shop: Workshop, job: ComparisonsJob) -> Metrics:
    """Have K responses per prompt ranked by labelers, or take the rankings in the data.

    The training set holds the rankings of the input ``earlier`` as well, if there is one; the other sets are this round's.
    """
    data, config = PreparedData(shop.input("data")), job.comparisons
    with shop.progress(1, "set") as bar:
        if config.samples:
            collected = _ranked(shop, job)
        else:
            collected = take_given(data.comparisons("train"), data.comparisons("valid"), config)
        bar.update()
    sets = dict(collected.sets)
    if "earlier" in shop.inputs:
        sets["train"] = [*read_comparisons(shop.input("earlier"))["train"], *sets["train"]]
    write_comparisons(shop.folder, sets)
    return collected.metrics


def _ranked(shop: Workshop, job: ComparisonsJob) -> Collected:
    config, seed = job.comparisons, job.seed(job.comparisons.seed)
    tokenizer = PreparedData(shop.input("data")).tokenizer()
    world = World.read(shop.input("world")) if "world" in shop.inputs else None
    drawn: Drawn
    if "candidates" in shop.inputs:
        drawn, batch_id = read_drawn(shop.input("candidates")), job.batch_id(shop.inputs["candidates"].digest)
    else:
        drawn, batch_id = _drawn(shop, config, job.round, seed, job.policy), ""
    panel = None if world is None else Panel.of(world, config.seed)
    around = Surroundings(shop.store.root.parent, shop.runtime, tokenizer, panel, batch_id, seed)
    labelers: dict[str, Labeler] = {name: labeler(name, config, around) for name in config.labelers}
    collected = collect(drawn, labelers, reader(tokenizer), world, config, seed)
    for one in labelers.values():
        shop.log.metrics(one.spent())
    _require_the_labels_of_the_key(shop, job)
    return collected


def _require_the_labels_of_the_key(shop: Workshop, job: ComparisonsJob) -> None:
    """A label that came in while the stage read them is in its result and not in its key, or the other way round."""
    now = dependencies("tasks.comparisons", job, shop.inputs, shop.store.root.parent)
    if fingerprint(now) != shop.key.rpartition("/")[2]:
        batch = job.batch_id(shop.inputs["candidates"].digest)
        raise AwaitingLabels(
            "labels came in while they were read; the same command reads them again",
            str(shop.store.root.parent / "labels" / batch),
            0,
        )


def _drawn(shop: Workshop, config: SamplingConfig, number: int, seed: int, policy: str) -> Drawn:
    data = PreparedData(shop.input("data"))
    asked = {split: _prompts(data, split, config, number) for split in ("train", "valid")}
    model = load_policy(shop.input("policy") / "policy", shop.runtime.device)
    drawn = draw(model, data.tokenizer(), asked["train"], asked["valid"], config, shop.runtime, seed)
    return {split: [one._replace(policy=policy) for one in candidates] for split, candidates in drawn.items()}


def _prompts(data: PreparedData, split: Split, config: SamplingConfig, number: int) -> Sequence[Prompt]:
    """The prompts of a round: the first ``max_prompts``, then the next ones, from the start again when all were used."""
    role = data.comparison_prompts if config.prompts_from == "comparison_prompts" else data.rl_prompts
    prompts = role(split)
    if not prompts:
        raise DataError(
            f"comparisons.prompts_from: found no {config.prompts_from} in the {split} split, expected some to sample "
            "responses to; use comparisons.prompts_from=rl_prompts for data of your own, or give more prompts"
        )
    start = (number - 1) * (config.max_prompts if split == "train" else config.max_valid_prompts) % len(prompts)
    return [*prompts[start:], *prompts[:start]]
