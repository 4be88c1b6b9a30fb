"""Sampling without the numbers of each token."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from tasks.language.generation import sample


def generate(model: PreTrainedModel, prompts: Sequence[Sequence[int]], **how: Any) -> list[list[int]]:
    return sample(model, prompts, **how, with_statistics=False).responses
