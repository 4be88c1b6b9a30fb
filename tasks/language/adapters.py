"""Low-rank adapters: train a few thin matrices beside a frozen base, and share that base between networks.

A network with an adapter is a module tree of its own whose base weights may be those of another tree (``trainable_copy``): the
frozen network is the tree without adapters, the trained one is its twin with them, and the weights are in memory once.
Nothing is ever switched on or off. The layers are those of peft, and ``save_adapter`` writes what peft reads.

Source: Hu et al. 2021 (arXiv:2106.09685).
"""

import copy
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tasks.engine.config import AdapterConfig
from tasks.engine.errors import ConfigError, ModelError
from tasks.language.beside import spare_passes
from tasks.language.four_bit import FourBitLinear, four_bit_layers, replace
from tasks.language.loading import ONE_AT_A_TIME
from tasks.language.recompute import drawing
from tasks.language.shards import is_divided, part_of, saved, whole
from tasks.language.sizes import in_four_bits

Precision = Literal["fp32", "bf16"]
NAME = "default"
"""peft's name for the only adapter of a model."""
IN_FOLDER = "base_model.model."
"""What peft puts before the keys of a saved adapter: its own two wrappers around the model."""


def freeze(network: PreTrainedModel, precision: Precision) -> None:
    """Train none of a network's weights, and keep them in this precision; buffers such as rotary frequencies stay fp32, and
    what is in 4 bits stays that."""
    network.requires_grad_(False)
    if precision == "bf16":
        rounded = {id(part) for layer in four_bit_layers(network).values() for part in (layer.weight, layer.scales)}
        for parameter in network.parameters():
            if id(parameter) not in rounded:
                parameter.data = parameter.data.bfloat16()


def quantise(network: PreTrainedModel) -> None:
    """Keep the linear layers of a network's trunk in 4 bits. In place; what is in 4 bits already is left alone.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    for name, layer in linear_layers(network).items():
        if not isinstance(layer, FourBitLinear):
            replace(network, name, FourBitLinear(layer))


def attach(
    model: PreTrainedModel, config: AdapterConfig, generator: torch.Generator, precision: Precision = "fp32"
) -> PreTrainedModel:
    """Give a causal language model, or a trunk, an adapter; its own weights are frozen in ``precision``, or in 4 bits. In
    place.

    The adapter changes no output yet: one factor is drawn from ``generator``, as peft draws it, the other is 0.

    Raises:
        ConfigError: peft is not installed, or a target names no linear layer.
    """
    peft = load_peft()
    if in_four_bits(config):
        quantise(model)
    layers = target_layers(model, config)
    freeze(model, precision)
    wanted = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0.0,  # peft's draws from the process's generator; see adapter_dropout
        target_modules=sorted({name.rpartition(".")[2] for name in layers}),
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers.values()),
        bias="none",
    )
    with ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):  # it draws weights that are replaced below
        peft.inject_adapter_in_model(wanted, model, adapter_name=NAME)
    adapted = adapted_layers(model)
    assert adapted.keys() == layers.keys(), sorted(adapted.keys() ^ layers.keys())
    freeze(model, precision)  # peft's layers are new
    with torch.no_grad():
        for _, layer in sorted(adapted.items()):
            down, up = layer.lora_A[NAME].float(), layer.lora_B[NAME].float()  # whatever the base's precision
            drawn = torch.rand(down.weight.shape, generator=generator, device=generator.device)
            down.weight.copy_((2 * drawn - 1) / math.sqrt(down.in_features))
            up.weight.zero_()
            for factor in (down, up):
                factor.weight.requires_grad_(True)
            if type(layer) is peft.tuners.lora.Linear:
                spare_passes(layer, NAME)
    return model.eval()


def trainable_copy(
    frozen: PreTrainedModel,
    config: AdapterConfig | None,
    generator: torch.Generator,
    precision: Precision = "fp32",
) -> PreTrainedModel:
    """A network to train that starts as another, which is frozen in ``precision``: without a configuration a full copy of it,
    else its twin with an adapter. Twins have one copy of the frozen weights between them.
    """
    if config is not None:
        if in_four_bits(config):
            quantise(frozen)
        return attach(twin(frozen), config, generator, precision)
    copied = copy.deepcopy(frozen).requires_grad_(True)
    freeze(frozen, precision)
    return copied


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """A module tree of its own over the same parameters."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def snapshot(module: Any) -> Any:
    """A copy whose trained weights are its own; it shares what is frozen. One that ranks divide is put together."""
    if is_divided(module):
        return whole(module)
    return copy.deepcopy(module, {id(part): part for part in module.parameters() if not part.requires_grad})


def merged(model: Any) -> Any:
    """The module without adapters, of its original class, with what they had learnt in its own weights, in fp32.

    A copy; a module that has no adapter is returned as it is.
    """
    if not adapted_layers(model):
        return model
    whole = copy.deepcopy(model)
    if four_bit_layers(whole):
        whole = whole.cpu()  # in full, the weights may have no room beside the rest
    whole = whole.float()
    for name, layer in adapted_layers(whole).items():
        base = layer.get_base_layer()
        if isinstance(base, FourBitLinear):
            base = base.dense()
            layer.fan_in_fan_out = isinstance(base, Conv1D)
        base.weight.data += layer.get_delta_weight(NAME)
        replace(whole, name, base)
    for name, rounded in four_bit_layers(whole).items():
        replace(whole, name, rounded.dense())
    for part in whole.modules():
        part.__dict__.pop("peft_config", None)
    return whole.requires_grad_(True)


def save_adapter(model: PreTrainedModel, folder: Path) -> None:
    """The adapter alone, in peft's layout; ``PeftModel.from_pretrained(base, folder)`` puts it on the base it was trained on.

    The same adapter gives the same bytes. A model without one writes nothing.
    """
    if not adapted_layers(model):
        return
    found = model.peft_config[NAME].to_dict()
    # peft keeps sets, and names of the machine's base; neither is the same everywhere
    settings = found | {"target_modules": sorted(found["target_modules"]), "inference_mode": True}
    settings |= {"base_model_name_or_path": None}
    folder.mkdir(parents=True)
    text = json.dumps(settings, indent=2, sort_keys=True, default=_plain) + "\n"
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    factors = {
        f"{IN_FOLDER}{name}.lora_{factor}.weight": getattr(layer, f"lora_{factor}")[NAME]
        .weight.detach()
        .cpu()
        .contiguous()
        for name, layer in adapted_layers(model).items()
        for factor in "AB"
    }
    save_file(factors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a module without what is frozen: all of it where everything is trained."""
    frozen = _frozen(model)
    return {name: saved(value) for name, value in model.state_dict().items() if name not in frozen}


def load_trained_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Continue from ``trained_state`` of an equal module on an equal base.

    Raises:
        ModelError: the state belongs to another module.
    """
    own = model.state_dict()
    expected = own.keys() - _frozen(model)
    if different := state.keys() ^ expected:
        raise ModelError(
            f"checkpoint: it differs from {type(model).__name__} in {len(different)} tensors, first {min(different)}; "
            "delete the checkpoint to start this stage afresh"
        )
    model.load_state_dict({name: part_of(value, own[name]) for name, value in state.items()}, strict=False)


@contextmanager
def adapter_dropout(model: nn.Module, probability: float, generator: torch.Generator) -> Iterator[None]:
    """Inside this context, drop elements of what the adapters read and scale up the rest; the base reads all.

    Draws come from ``generator``, which is on the model's device. It applies in train and eval mode alike.
    """

    def drop(_module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        kept = torch.empty_like(inputs[0]).bernoulli_(1.0 - probability, generator=generator)
        return inputs[0] * kept.div_(1.0 - probability)

    layers = adapted_layers(model).values() if probability else ()
    hooks = [layer.lora_A[NAME].register_forward_pre_hook(drop) for layer in layers]
    try:
        with drawing(generator):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def target_layers(model: PreTrainedModel, config: AdapterConfig) -> dict[str, nn.Module]:
    """Name -> linear layer of the trunk, for every layer that gets an adapter.

    Raises:
        ConfigError: a target names none.
    """
    linear = linear_layers(model)
    if config.targets == "all-linear":
        return linear
    check_targets(config, {name.rpartition(".")[2] for name in linear}, type(model).__name__)
    return {name: part for name, part in linear.items() if name.rpartition(".")[2] in config.targets}


def check_targets(config: AdapterConfig, names: set[str], owner: str) -> None:
    """Every target must be the name of a linear layer.

    Raises:
        ConfigError: one is none of ``names``.
    """
    if config.targets != "all-linear" and (unknown := sorted(set(config.targets) - names)):
        raise ConfigError(
            f"adapter.targets: {owner} has no linear layer named {unknown[0]}, expected some of {', '.join(sorted(names))}; "
            "correct it, or set adapter.targets=all-linear"
        )


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Name -> linear layer, for every one that adapters can be beside: those of the trunk, so never the output head."""
    inside = {id(part) for part in model.base_model.modules()}
    named = {name: part for name, part in model.named_modules() if id(part) in inside}
    return {name: part for name, part in named.items() if isinstance(part, nn.Linear | Conv1D)}


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """Name -> layer, for every layer with an adapter."""
    return {name: part for name, part in model.named_modules() if hasattr(part, "lora_A")}


def load_peft() -> Any:
    """The package, which is an extra.

    Raises:
        ConfigError: it is not installed.
    """
    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # peft imports it too, and it names packages that it would like
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            f"adapter=lora needs peft, which is not installed ({error}); install it with `pip install -c constraints.txt -e "
            ".[adapters]`, or set adapter=none"
        ) from error
    return peft


def _frozen(model: nn.Module) -> set[str]:
    return {name for name, part in model.named_parameters(remove_duplicate=False) if not part.requires_grad}


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)
