"""A foreign model, looked at before anything is trained: its files, its configuration, its tokenizer, its weights, and
whether this program reads it as it reads itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from tasks.engine.errors import ModelError
from tasks.engine.findings import Finding, refuse
from tasks.language.agreement import largest_disagreement
from tasks.language.loading import ONE_AT_A_TIME, check_files, given_of
from tasks.language.models import load_policy
from tasks.language.tokenizer import load_tokenizer
from tasks.language.vocabulary import cut_rows_without_text, rows_for_text, rows_of

READ_BEFORE_A_RUN = 3 * 2**30
"""Bytes of weights up to which they are read before a run starts; larger ones are checked by the first stage."""
TOLERANCE = 1e-3
"""Share of the spread of a token's logits by which decoding may differ from one forward pass, in fp32."""
TRAINABLE = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Kinds of numbers that weights are saved in; others are codes, which need the scales that they were made with."""
BY_LENGTH = ("longrope", "dynamic")
"""Rotary embeddings whose factors follow the longest sequence of a batch."""


def inspect_model(
    key: str,
    name: str,
    longest: int | None = None,
    revision: str | None = None,
    remedy: Callable[[int], str] = "set model.context_tokens={}".format,
) -> list[Finding]:
    """Everything that can be known of a model within seconds.

    Args:
        key: where the model was named.
        name: a folder, or a name on a hub, of which only the configuration is read.
        longest: tokens of the longest sequence that it will be asked to read, ``model.context_tokens``.
        revision: of a hub name.
        remedy: what to do when the model reads only so many tokens.
    """
    folder = Path(name).expanduser()
    local = folder.is_dir()
    try:
        if local:
            check_files(folder)
        with ONE_AT_A_TIME:
            config = AutoConfig.from_pretrained(folder if local else name, **given_of(revision))
    except ModelError as error:
        return [Finding("error", key, str(error))]
    except (OSError, ValueError, KeyError) as error:
        return [_unreadable(key, name, local, error)]
    found = [*_of_config(key, name, config, longest, remedy)]
    if not local or any(finding.severity == "error" for finding in found):
        return found
    found += _of_tokenizer(key, folder, config)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if size <= READ_BEFORE_A_RUN:
        found += _of_weights(key, folder)
        if not any(finding.severity == "error" for finding in found):
            with _one_thread():
                found += _of_reading(key, folder)
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take many times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_fit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Check a model that was loaded, and take rows off its embedding that no id of the tokenizer uses.

    Raises:
        ModelError: a weight is not finite, text has ids without a row, or it is not decoded as it reads itself.
    """
    damaged = next((key for key, weight in model.named_parameters() if not torch.isfinite(weight).all()), None)
    if damaged is not None:
        refuse([_not_finite(name, f"in {damaged}")])
    refuse(_rows("model", name, rows_of(model), tokenizer))
    refuse(_agreement("model", name, model))
    cut_rows_without_text(model, tokenizer)


def _unreadable(key: str, name: str, local: bool, error: Exception) -> Finding:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "trust_remote_code" in str(error):
        advice = "code that comes with a model is never run: choose a model of another family"
        return _error(key, f"{name}, which brings code of its own", "a family that transformers knows", advice)
    found = f"{name}, which cannot be read ({reason})"
    if local:
        return _error(key, found, "the config.json of a family that transformers knows", "copy it again or correct it")
    advice = "check the spelling, or download it and give the folder"
    return _error(key, found, "a local folder, or a hub and a network", advice)


def context_of(config: PretrainedConfig) -> int | None:
    """Tokens that a model was made to read; None where its positions have no end."""
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(found) if found else None


def _of_config(
    key: str, name: str, config: PretrainedConfig, longest: int | None, remedy: Callable[[int], str]
) -> Iterator[Finding]:
    quantized = getattr(config, "quantization_config", None)
    if quantized is not None:
        how = quantized.get("quant_method") if isinstance(quantized, dict) else type(quantized).__name__
        yield _error(
            key,
            f"{name}, whose weights are quantized ({how})",
            "weights in fp32, bf16 or fp16, which can be trained",
            "give the model that it was made from, or save its dequantized weights with save_pretrained",
        )
    if longest is None:
        return
    own = context_of(config)
    if own is not None and longest > own:
        expected = f"at least model.context_tokens ({longest})"
        yield _error(key, f"{name}, which reads {own} tokens", expected, remedy(own))
    for rope in _ropes(getattr(config.get_text_config(), "rope_parameters", None)):
        start = rope.get("original_max_position_embeddings") or own
        if rope.get("rope_type") in BY_LENGTH and start is not None and longest > start:
            yield _error(
                key,
                f"{name}, whose rotary embedding ({rope['rope_type']}) changes for every sequence of a batch when one is "
                f"longer than {start} tokens",
                f"model.context_tokens up to {start}",
                remedy(start),
            )


def _ropes(parameters: Any) -> list[dict[str, Any]]:
    """One set of rotary parameters, or one for each kind of layer."""
    if not isinstance(parameters, dict):
        return []
    return (
        [parameters] if "rope_type" in parameters else [each for each in parameters.values() if isinstance(each, dict)]
    )


def _of_tokenizer(key: str, folder: Path, config: PretrainedConfig) -> list[Finding]:
    try:
        tokenizer = load_tokenizer(folder)
    except ModelError as error:
        return [Finding("error", key, str(error))]
    return _rows(key, str(folder), int(config.get_text_config().vocab_size), tokenizer)


def _rows(key: str, name: str, rows: int, tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    needed = rows_for_text(tokenizer)
    if rows >= needed:
        return []
    return [
        _error(
            key,
            f"{name}, whose embedding has {rows} rows and whose tokenizer gives text ids up to {needed - 1}",
            "a row for every id",
            f"give the tokenizer it was trained with, or save it after model.resize_token_embeddings({needed})",
        )
    ]


def _of_weights(key: str, folder: Path) -> list[Finding]:
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118  # no mapping
                    tensor = weights.get_tensor(name)
                    if name.endswith("weight") and tensor.dtype not in TRAINABLE:
                        return [_quantized(key, f"{str(tensor.dtype).removeprefix('torch.')} in {name} of {path}")]
                    if tensor.is_floating_point() and not finite(tensor):
                        return [_not_finite(key, f"in {name} of {path}")]
        except (SafetensorError, OSError) as error:
            return [_error(key, f"{path}, which cannot be read ({error})", "whole safetensors", "copy it again")]
    return []


def _quantized(key: str, found: str) -> Finding:
    return _error(
        key,
        found,
        "weights in fp32, bf16 or fp16, which can be trained",
        "give the model that it was made from, or save its dequantized weights with save_pretrained",
    )


def finite(tensor: torch.Tensor) -> bool:
    """Whether every number is one: smallest and largest tell, in a seventh of the time that looking at each takes."""
    return not tensor.numel() or bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


def _of_reading(key: str, folder: Path) -> list[Finding]:
    try:
        model = load_policy(folder, "cpu")
    except ModelError as error:
        return [Finding("error", key, str(error))]
    return _agreement(key, str(folder), model)


def _agreement(key: str, name: str, model: PreTrainedModel) -> list[Finding]:
    try:
        apart = largest_disagreement(model)
    except Exception as error:  # whatever a family's own code raises: the model cannot be used, and that is the message
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason'}"
        found = f"{name}, a {type(model).__name__} that cannot be decoded token by token ({reason})"
    else:
        if apart <= TOLERANCE:
            return []
        found = (
            f"{name}, a {type(model).__name__} whose logits, decoded token by token beside other sequences, are not those "
            f"of one forward pass (off by {apart:.1%} of their spread)"
        )
    return [_error(key, found, "the same", "choose a model of another family, such as Llama, Qwen, Gemma or GPT-2")]


def _not_finite(key: str, where: str) -> Finding:
    return _error(
        key, f"numbers that are not finite {where}", "finite weights", "the file is damaged: copy or save it again"
    )


def _error(where: str, found: str, expected: str, remedy: str) -> Finding:
    return Finding("error", where, f"found {found}, expected {expected}; {remedy}")
