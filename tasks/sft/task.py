"""Supervised fine-tuning as tasks: training, and the later choice of an epoch by reward-model score."""

import logging
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

from transformers import PreTrainedModel

from tasks.engine.ranks import here
from tasks.engine.stage import Metrics, Workshop
from tasks.language.adapters import attach, save_adapter
from tasks.language.bases import load_base
from tasks.language.models import ScalarModel, load_policy, save_policy
from tasks.language.scorer import score_rows
from tasks.language.seeds import named_generator
from tasks.language.shards import whole
from tasks.language.speaker import Speaker
from tasks.language.text import encode_prompt
from tasks.records.data import PreparedData
from tasks.records.picks import picked_among, picks_file, read_picks
from tasks.records.records import Demonstration
from tasks.sft.config import SFTConfig
from tasks.sft.endings import eos_rate, warning
from tasks.sft.kept import SUMS, begin_again_if_damaged, keep
from tasks.sft.selection import select_by_reward
from tasks.sft.train import SFTLearner

logger = logging.getLogger("plumbline")


def fine_tune(shop: Workshop, config: SFTConfig) -> Metrics:
    """Train on demonstrations, with or without a share of pretraining text.

    The demonstrations are the data's, or responses that rejection sampling chose where those are an input.
    """
    data = PreparedData(shop.input("data"))
    tokenizer = data.tokenizer()
    model = load_base(shop.input("base") / "policy", shop.runtime.device, config.adapter)
    if config.adapter is not None:
        draws = named_generator(config.seed, "sft/adapter")
        attach(model, config.adapter, draws, shop.runtime.frozen_precision)
    epochs = shop.checkpoints / "epochs"
    begin_again_if_damaged(epochs)

    def keep_epoch(epoch: int, trained: PreTrainedModel) -> None:
        keep(epochs / str(epoch), partial(save_policy, trained, tokenizer))

    demonstrations = _demonstrations(shop, data)
    learner = SFTLearner(
        model,
        demonstrations,
        data.documents("train"),
        tokenizer,
        config,
        shop.runtime,
        valid=data.demonstrations("valid"),
        keep_epoch=keep_epoch if config.selection == "reward_model" else None,
    )
    losses: list[float] = [metrics["train/loss"] for metrics in shop.train(learner)]
    epoch = learner.load_selected()
    trained = whole(learner.model)
    save_policy(trained, tokenizer, shop.folder / "policy")
    save_adapter(trained, shop.folder / "adapter")
    if epochs.is_dir() and here().first:
        shutil.copytree(epochs, shop.folder / "epochs", ignore=shutil.ignore_patterns(SUMS, ".*"))
    final = {"cost/tokens_learned": float(learner.counted_tokens)}
    final |= {f"valid/loss_epoch_{number}": loss for number, loss in learner.valid_losses.items()}
    if losses:  # none when a run was killed between its last checkpoint and here
        final["train/loss"] = losses[-1]
    rate = eos_rate(trained, tokenizer, data.demonstrations("valid"), config, shop.runtime)
    if rate is not None:
        final["valid/eos_rate"] = rate
        if told := warning(rate, shop.stage, config):
            logger.warning(told)
    return final | {"selected/epoch": float(epoch)}


def _demonstrations(shop: Workshop, data: PreparedData) -> Sequence[Demonstration]:
    picked = picked_among(shop.inputs)
    if picked is None:
        found, file = data.demonstrations("train"), data.file("demonstrations", "train")
    else:
        found, file = read_picks(shop.input(picked), picked), picks_file(shop.input(picked), picked)
    shop.uses(file, "demonstrations/train", len(found), "training")
    return found


def select_epoch(shop: Workshop, config: SFTConfig) -> Metrics:
    """Keep the epoch whose samples on validation prompts the reward model scores highest (InstructGPT C.1)."""
    data = PreparedData(shop.input("data"))
    tokenizer = data.tokenizer()
    judge = ScalarModel.load(shop.input("reward_model") / "model", shop.runtime.device)
    texts = [item.prompt.text for item in data.demonstrations("valid")]
    prompts = [encode_prompt(tokenizer, text, config.prompt_tokens) for text in texts]

    def mean_reward(folder: Path) -> float:
        responses = Speaker(load_policy(folder, shop.runtime.device), tokenizer, shop.runtime).answer(
            prompts,
            max_new_tokens=config.response_tokens,
            temperature=1.0,
            generator=named_generator(config.seed, "sft/selection", shop.runtime.device),
        )
        return fmean(score_rows(judge, prompts, responses, int(tokenizer.pad_token_id), shop.runtime))

    folders = {int(path.name): path for path in (shop.input("sft") / "epochs").iterdir()}
    epoch, scores = select_by_reward(folders, mean_reward)
    shutil.copytree(folders[epoch], shop.folder / "policy")
    return {f"valid/reward_epoch_{number}": score for number, score in scores.items()} | {
        "selected/epoch": float(epoch)
    }
