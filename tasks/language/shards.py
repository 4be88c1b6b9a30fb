"""Networks whose weights, gradients and optimizer states the ranks of a stage divide among themselves (``runtime.shard=full``).

Torch's ``fully_shard`` has a rank keep its part of each weight; a decoder layer is put together just before it is used. What
is not a training pass (sampling, measuring, saving) has ``whole(network)``, an ordinary network. One that is not divided
passes through every function here unchanged.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tasks.engine.config import RuntimeConfig
from tasks.engine.errors import ConfigError
from tasks.engine.ranks import here
from tasks.language.families import decoder_layers

Network = TypeVar("Network", bound=nn.Module)
T = TypeVar("T")
NO_ADAPTERS = (
    "runtime.shard is full and a network has an adapter beside frozen weights, expected one that is trained as a whole; set "
    "adapter=none, or runtime.shard=none"
)
SKELETON = "_skeleton"
"""Attribute of a divided network: its module tree before it was, with weights of shape but no content."""


def divide(network: Network, runtime: RuntimeConfig) -> Network:
    """Keep this rank's part of each weight, in place, where the runtime asks for it and there is somebody to divide with.

    Before the optimizer is made, and after everything that copies the network.
    """
    if runtime.shard == "none" or here().count == 1 or is_divided(network):
        return network
    if len({part.requires_grad for part in network.parameters()}) > 1:
        raise ConfigError(NO_ADAPTERS)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    empty = {id(part): nn.Parameter(part.to("meta"), part.requires_grad) for part in network.parameters()}
    skeleton = copy.deepcopy(network, {**empty, **_themselves(network)})
    mesh = init_device_mesh(next(network.parameters()).device.type, (here().count,))
    for part in (*decoder_layers(getattr(network, "backbone", network)), network):
        fully_shard(part, mesh=mesh)
        assert isinstance(part, FSDPModule)
        # Losses are sums divided by counts over all rows, so gradients are added, not averaged.
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)
    network.__dict__[SKELETON] = skeleton  # not a child of it
    network.__dict__["read"] = lambda function, *args: function(*args)
    register_fsdp_forward_method(network, "read")
    return network


def is_divided(network: nn.Module) -> bool:
    """Whether ``divide`` did."""
    return SKELETON in network.__dict__


def reading(network: nn.Module, function: Callable[..., T], *args: Any) -> T:
    """What a function of the network returns that uses parts of it, such as trunk and head one after the other."""
    found: T = network.read(function, *args) if is_divided(network) else function(*args)  # type: ignore[operator]
    return found


@contextmanager
def in_step(network: nn.Module, passes: int, idle: Callable[[], object]) -> Iterator[None]:
    """Around so many passes of this rank: as many idle ones follow as other ranks make more, which else would wait for it."""
    missing = max(here().gather(passes)) - passes if is_divided(network) else 0
    yield
    for _ in range(missing):
        idle()


def whole(network: Network) -> Network:
    """An ordinary network with all weights, on every rank; all ranks ask for it together. It shares buffers with the divided."""
    if not is_divided(network):
        return network
    skeleton, parts = network.__dict__[SKELETON], network.state_dict()
    weights = {
        id(empty): nn.Parameter(together(parts[name]), empty.requires_grad)
        for name, empty in skeleton.named_parameters()
    }
    copied: Network = copy.deepcopy(skeleton, {**weights, **_themselves(network)})
    return copied.train(network.training)


def is_part(value: Any) -> bool:
    """Whether a tensor is a rank's part of one."""
    return hasattr(value, "full_tensor")


def together(value: Tensor) -> Tensor:
    """The whole of a part, on every rank. Any other tensor as it is."""
    found: Tensor = value.full_tensor() if is_part(value) else value  # type: ignore[attr-defined]
    return found


def saved(value: Tensor) -> Tensor:
    """The whole of a part on the first rank's CPU; nothing on the others, which save nothing. Any other tensor as it is."""
    if not is_part(value):
        return value
    found = together(value)
    return found.cpu() if here().first else found.new_empty(0, device="cpu")


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """This rank's part of what the first rank has whole, divided as ``like`` is; as it is where that is not divided."""
    if not is_part(like):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    given = value if here().first else torch.empty(like.shape, dtype=value.dtype)
    return distribute_tensor(given.to(like.device), like.device_mesh, like.placements)


def _themselves(network: nn.Module) -> dict[int, Tensor]:
    """What a deep copy is to share: the buffers."""
    return {id(buffer): buffer for buffer in network.buffers()}
