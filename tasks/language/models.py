"""Models: load, save, build from scratch, and give a scalar head.

Weights are read from safetensors only, code that comes with a model is never run, and parameters are fp32: half
precision is a matter of ``precision``. Every model comes with its own dropouts at 0.
"""

import copy
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from tasks.engine.config import AdapterConfig, ArchitectureConfig
from tasks.engine.errors import ModelError
from tasks.engine.ranks import here
from tasks.language.adapters import Precision, merged, trainable_copy
from tasks.language.batches import TokenBatch
from tasks.language.families import hidden_states, logits_of, switch_dropout_off, trunk_of
from tasks.language.loading import (
    HEAD_FILE,
    ONE_AT_A_TIME,
    REPORTER,
    cannot_load,
    check_model_files,
    check_report,
    check_tokenizer_files,
    given_of,
    report_held_back,
    source_of,
)
from tasks.language.logprobs import on_grid, states_before_response
from tasks.language.seeds import named_generator
from tasks.language.shards import reading
from tasks.language.tokenizer import check_tokenizer, save_tokenizer
from tasks.language.types import PreTrainedTokenizerBase
from tasks.language.vocabulary import rows_of

TRUNK = "trunk."
"""Prefix, in that file, of weights of the trunk that the folder's model has changed."""


def load_policy(folder: Path | str, device: torch.device | str, *, revision: str | None = None) -> PreTrainedModel:
    """A causal language model from a local folder or, where there is a network, a hub name.

    Raises:
        ModelError: nothing there, no config, no tokenizer, no safetensors, weights missing, or a model of another kind.
    """
    check_tokenizer_files(folder)
    _check_head(model := load_checked(AutoModelForCausalLM, folder, device, revision), folder)
    return model


def save_policy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path | str) -> None:
    """Weights as safetensors, configuration and tokenizer, in the layout that ``transformers`` and vLLM read.

    An adapter is merged. The same weights and tokenizer give the same bytes. All ranks have the same, so that only the
    first one writes.
    """
    model = merged(model) if here().first else model
    eos, pad = int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)
    # A pad token that was added to the tokenizer only has no row in the embedding, and needs none: see pad_batch.
    known_pad = pad if pad < rows_of(model) else None
    for config in (model.config, model.generation_config):
        if config is not None:
            config.eos_token_id, config.pad_token_id = _ends(config.eos_token_id, eos), known_pad
    if not here().first:
        return
    disable_progress_bar()
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def _ends(known: int | list[int] | None, eos: int) -> int | list[int]:
    """Ids at which generation ends: a model's list of them stays one, the tokenizer's EOS first."""
    return list(dict.fromkeys([eos, *known])) if isinstance(known, list) and eos in known else eos


def new_causal_lm(
    architecture: ArchitectureConfig, tokenizer: PreTrainedTokenizerBase, context_tokens: int, seed: int
) -> PreTrainedModel:
    """A Llama with random weights: matrices normal with the configured deviations, gains 1."""
    check_tokenizer(tokenizer)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.heads,
        max_position_embeddings=context_tokens,
        rope_parameters={"rope_type": "default", "rope_theta": architecture.rope_theta},
        tie_word_embeddings=architecture.tie_embeddings,
        bos_token_id=None,
        eos_token_id=int(tokenizer.eos_token_id),
        pad_token_id=int(tokenizer.pad_token_id),
        attn_implementation="sdpa",
    )
    with ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):  # the constructor draws weights that are replaced below
        model = LlamaForCausalLM(config).float()
    generator = named_generator(seed, "pretrain/weights")
    embedding = model.get_input_embeddings().weight
    with torch.no_grad():
        for param in model.parameters():
            if param.ndim < 2:
                param.fill_(1.0)
            else:
                std = architecture.embedding_std if param is embedding else architecture.projection_std
                param.normal_(0.0, std, generator=generator)
    return model.eval()


class ScalarModel(nn.Module):
    """A language model's trunk with a scalar head: the reward model, and the value model that starts as its copy.

    ``score_bias`` is subtracted from every output; calibration sets it so that demonstrations average 0 (docs/method.md C.4).

    Source: InstructGPT section 3.5; head weights normal with deviation 1 / sqrt(D + 1), bias 0 (docs/method.md C.1).
    """

    score_bias: Tensor  # ()

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone
        config = backbone.config.get_text_config()
        width = getattr(config, "word_embed_proj_dim", None) or config.hidden_size  # OPT 350M narrows its last states
        self.head = nn.Linear(width, 1, device=backbone.device)
        self.register_buffer("score_bias", torch.zeros((), device=backbone.device))

    @classmethod
    def from_policy(cls, policy: Path | str | PreTrainedModel, generator: torch.Generator) -> "ScalarModel":
        """A scalar head, drawn from ``generator``, on the trunk of a policy in a folder, or on a copy of one in memory."""
        in_memory = isinstance(policy, PreTrainedModel)
        model = cls(copy.deepcopy(trunk_of(policy)) if in_memory else trunk_of(load_policy(policy, "cpu")))
        width = model.head.in_features
        drawn = torch.randn(1, width, generator=generator, device=generator.device) / math.sqrt(width + 1)
        with torch.no_grad():
            model.head.weight.copy_(drawn)
            model.head.bias.zero_()
        return model.eval()

    def trainable_copy(
        self, adapter: AdapterConfig | None, generator: torch.Generator, precision: Precision = "fp32"
    ) -> "ScalarModel":
        """A model to train that starts as this one, which is frozen in ``precision``, with a head of its own: on a copy of
        the trunk, or on this very trunk with an adapter."""
        trunk = trainable_copy(self.backbone, adapter, generator, precision)
        model: ScalarModel = copy.deepcopy(self, {id(self.backbone): trunk})
        model.head.requires_grad_(True)
        self.head.requires_grad_(False)
        return model

    def scores(self, batch: TokenBatch) -> Tensor:  # (B,) fp32
        """The output at each row's last real token: EOS if the response has one, else the token it was cut at."""
        return reading(self, self._scores, batch)

    def values(self, batch: TokenBatch) -> Tensor:  # (B, R) fp32
        """The value of the state before each response token, 0 on padding."""
        return reading(self, self._values, batch)

    def _scores(self, batch: TokenBatch) -> Tensor:
        rows = torch.arange(len(batch.lengths))
        return self._read(hidden_states(self.backbone, batch, batch.lengths, rows, batch.lengths - 1))

    def _values(self, batch: TokenBatch) -> Tensor:
        states, mask = states_before_response(self.backbone, batch)
        return on_grid(self._read(states), mask)

    def save(self, folder: Path | str) -> None:
        """Trunk, with an adapter merged, head and bias; the same model gives the same bytes. The first rank writes."""
        if not here().first:
            return
        disable_progress_bar()
        merged(self.backbone).save_pretrained(folder)
        head = {"weight": self.head.weight, "bias": self.head.bias, "score_bias": self.score_bias}
        save_file({name: part.detach().cpu().contiguous() for name, part in head.items()}, Path(folder) / HEAD_FILE)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> "ScalarModel":
        """Read what ``save`` wrote.

        Raises:
            ModelError: the folder holds no scalar model.
        """
        path = Path(folder) / HEAD_FILE
        if not path.is_file():
            raise ModelError(
                f"{folder}: found no {HEAD_FILE}, expected a reward model saved by this program; point to one, or make "
                "it from a policy with ScalarModel.from_policy"
            )
        with safe_open(path, framework="pt") as file:
            written = json.loads((file.metadata() or {}).get("trunk", "null"))
        config = None if written is None else CONFIG_MAPPING[written["model_type"]].from_dict(written)
        model = cls(load_checked(AutoModel, folder, device, None, config))
        parts = load_file(path)
        with torch.no_grad():
            for name, value in parts.items():
                if name.startswith(TRUNK):
                    model.backbone.get_parameter(name.removeprefix(TRUNK)).copy_(value)
            model.head.weight.copy_(parts["weight"])
            model.head.bias.copy_(parts["bias"])
            model.score_bias.copy_(parts["score_bias"])
        return model.eval()

    def _read(self, states: Tensor) -> Tensor:  # (..., D) -> (...)
        with torch.autocast(states.device.type, enabled=False):  # one number decides; it is worth full precision
            scalars: Tensor = self.head(states.float()).squeeze(-1)
        return scalars - self.score_bias


def load_checked(
    kind: Any,
    name: Path | str,
    device: torch.device | str,
    revision: str | None,
    config: PreTrainedConfig | None = None,
    **changes: Any,
) -> PreTrainedModel:
    """A whole model of safetensors in fp32, without dropout; ``config`` stands in for the folder's, ``changes`` change it.

    Raises:
        ModelError: nothing there, no config, no safetensors, weights missing.
    """
    source, given = source_of(name), given_of(revision)
    if Path(source).exists():
        check_model_files(Path(source))
    stand_in = config is not None
    disable_progress_bar()  # stages show their own
    try:
        with ONE_AT_A_TIME, report_held_back() as reported:
            config = config or AutoConfig.from_pretrained(source, **given, **changes)
            switch_dropout_off(config)
            model, report = kind.from_pretrained(
                source,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported, and refused below by name
                **given,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise cannot_load(name, "model", error) from error
    check_report(name, model, report, some_layers=stand_in)
    for record in reported if not stand_in else ():  # who gave the configuration knows what else the folder has
        REPORTER.handle(record)
    return model.to(device).eval()


def _check_head(model: PreTrainedModel, name: Path | str) -> None:
    """Trunk and output head, called apart as every stage does, must make the model's own logits."""
    ids = torch.tensor([[0, 1]], device=model.device)
    with torch.no_grad():
        try:
            own = model(input_ids=ids, use_cache=False).logits
            states = trunk_of(model)(input_ids=ids, use_cache=False).last_hidden_state
        except (TypeError, AttributeError) as error:
            raise ModelError(
                f"{name}: {type(model).__name__} cannot be read as other decoders are ({error}); choose a model of another "
                "family, such as Llama, Qwen, Gemma or GPT-2"
            ) from error
        same = torch.allclose(own, logits_of(model, states), rtol=1e-3, atol=1e-3, equal_nan=True)
    if not same:
        raise ModelError(
            f"{name}: {type(model).__name__} changes its logits behind the output head in a way this program does not "
            "know; choose a model of another family"
        )
