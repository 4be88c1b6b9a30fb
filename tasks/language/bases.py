"""The weights that a stage starts from, as it keeps them."""

from pathlib import Path

from transformers import PreTrainedModel

from tasks.engine.config import AdapterConfig
from tasks.language.adapters import quantise
from tasks.language.models import load_policy
from tasks.language.sizes import in_four_bits


def load_base(folder: Path, device: str, adapter: AdapterConfig | None) -> PreTrainedModel:
    """A policy; what an adapter has beside it in 4 bits is rounded before it is on the device, which need not hold it in full.

    Raises:
        ModelError: nothing there, or no policy.
        ConfigError: bitsandbytes is asked for and not installed.
    """
    if not in_four_bits(adapter):
        return load_policy(folder, device)
    model = load_policy(folder, "cpu")
    quantise(model)
    return model.to(device)
