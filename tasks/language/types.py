"""Classes of transformers by their names, for annotations alone: whoever only names them need not wait for their import."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
else:
    PreTrainedModel = PreTrainedTokenizerBase = Any

__all__ = ["PreTrainedModel", "PreTrainedTokenizerBase"]
