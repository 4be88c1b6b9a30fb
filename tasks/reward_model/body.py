"""Which trunk the reward model starts from."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tasks.engine.config import RuntimeConfig
from tasks.engine.errors import ModelError
from tasks.language.adapters import attach
from tasks.language.models import ScalarModel
from tasks.language.seeds import named_generator
from tasks.language.tokenizer import load_tokenizer
from tasks.reward_model.config import RewardModelConfig


def model_to_train(
    config: RewardModelConfig, sft: Path, tokenizer: PreTrainedTokenizerBase, runtime: RuntimeConfig
) -> ScalarModel:
    """A fresh head on the trunk that ``config`` names, with an adapter where one is asked for."""
    body = body_folder(config.body, sft, tokenizer)
    model = ScalarModel.from_policy(body, named_generator(config.seed, "reward_model/head"))
    if config.adapter is not None:
        draws = named_generator(config.seed, "reward_model/adapter")
        attach(model.backbone, config.adapter, draws, runtime.frozen_precision)
    return model.to(runtime.device)


def body_folder(body: str | None, sft: Path, tokenizer: PreTrainedTokenizerBase) -> Path | str:
    """The SFT baseline, or the model in the folder ``body``, which must read the policy's tokens.

    Source: InstructGPT section 3.5 (SFT) and appendix C.2 (a 6B model for every policy; both work alike).

    Raises:
        ModelError: ``body`` is no model, or its vocabulary is another one.
    """
    if body is None:
        return sft
    found, expected = load_tokenizer(body).get_vocab(), tokenizer.get_vocab()
    # A pad token may have been added to one and not to the other; it is never read.
    different = {token for token, _ in found.items() ^ expected.items()} - {str(tokenizer.pad_token)}
    if different:
        raise ModelError(
            f"reward_model.body: the vocabulary of {body} differs from the policy's in {len(different)} entries, such as "
            f"{min(different)!r}; expected the same tokenizer; choose a model of the policy's family, or null"
        )
    return body
