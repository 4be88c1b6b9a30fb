"""The base of every configuration class, and the pieces that several stages share.

Values live in ``conf/``; types and meaning live here. There are no defaults: what a run used is what its YAML says.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from tasks.engine.errors import ConfigError
from tasks.engine.urls import has_password

LARGEST = 2**53 - 1
"""Largest whole number that every page and database keeps exactly."""
Part = TypeVar("Part", bound="Config")


class Config(BaseModel):
    """Frozen, and closed: an unknown key is an error with its full path."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _usable(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what would be taken for something else, or end a run late: here, where the field's full key is known."""
        kinds = set(_kinds(cls.model_fields[str(info.field_name)].annotation))
        if not any(isinstance(kind, type) and issubclass(kind, Config) for kind in kinds):  # a group has its own fields
            for where, part in _parts(value):
                if problem := _problem(part, kinds, str(info.field_name)):
                    raise ValueError(f"{where}: {problem}" if where else problem)
        return value

    def fingerprint_fields(self) -> dict[str, Any]:
        """What a stage's result depends on, as plain JSON types."""
        return self.model_dump(mode="json")

    def fields_that_grow(self, home: Path, inputs: Mapping[str, str]) -> dict[str, Any]:
        """What a result depends on and what may grow between two runs, such as labels.

        Args:
            home: folder around the store.
            inputs: name -> digest of each input that is known.
        """
        return {}

    @property
    def calls_the_world(self) -> bool:
        """Whether the embedded world is run whatever the inputs are, so that its source counts."""
        return False

    def part(self, kind: type[Part]) -> Part:
        """Those of the values that another class has; groups in them likewise."""
        values = {name: getattr(self, name) for name in kind.model_fields}
        for name, field in kind.model_fields.items():
            if isinstance(values[name], Config) and isinstance(field.annotation, type):
                values[name] = values[name].part(field.annotation)
        return kind.model_validate(values)

    def tracked_params(self, group: str) -> dict[str, Any]:
        """The same values as nested parameters, spelled as on the command line."""
        return {group: self.model_dump(mode="json")}


def _kinds(annotation: Any) -> Iterator[Any]:
    """Every type that an annotation names, at any depth."""
    yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)


def _parts(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Place and value of everything in a value, keys included."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield "", key
            yield from _parts(item, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _parts(item, where)
    else:
        yield where, value


def _problem(value: Any, kinds: set[Any], field: str) -> str | None:
    """Why a value cannot be used, if it cannot; ``kinds`` are the types that its field takes."""
    numbers = kinds & {int, float}
    if isinstance(value, bool) and numbers and bool not in kinds:
        return f"found {str(value).lower()}, expected a number"
    digits = isinstance(value, str) and numbers and re.fullmatch(r"[-+]?\d{16,}", value.strip())
    if (isinstance(value, int) or digits) and abs(int(value)) > LARGEST:
        return f"found a number of {len(str(value).lstrip('-+'))} digits, expected one up to {LARGEST}"
    if not isinstance(value, str):
        return None
    if has_password(value):
        return _NO_PASSWORD
    if field.endswith("_env") and not re.fullmatch(r"[A-Za-z_]\w*", value):
        return "expected the NAME of an environment variable; the secret itself belongs into that variable"
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        return "found a null byte or half a character, which no file, page or database can keep; remove it"
    return None


_NO_PASSWORD = (
    "the address holds a password, which logs and pages would keep; write it without, and put the password into the "
    "environment: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for an MLflow server, PGPASSWORD or ~/.pgpass for "
    "PostgreSQL, PREFECT_API_AUTH_STRING for Prefect, the variable that api_key_env names for a judge"
)


def refuse_passwords(arguments: list[str]) -> None:
    """Refuse a command line with a password in an address, before anything writes it down.

    Raises:
        ConfigError: there is one; the sentence names the key only.
    """
    for argument in arguments:
        if has_password(argument):
            key = argument.partition("=")[0] if "=" in argument.partition("://")[0] else "command line"
            raise ConfigError(f"{key.lstrip('+~')}: {_NO_PASSWORD}")


def one_line(text: str) -> str:
    """A name that MLflow, Prefect and a page all take.

    Raises:
        ValueError: it is empty, too long, has a space at an end, or more than one line.
    """
    if not re.fullmatch(r"\S([^\x00-\x1f\x7f]{0,198}\S)?", text):
        raise ValueError(f"found {text[:50]!r}, expected 1 to 200 characters in one line, with no space at either end")
    return text


class AdapterConfig(Config):
    """Low-rank adapters: the base stays as it is, and every chosen linear layer gets an additive product of two thin
    matrices, which alone are trained (LoRA, Hu et al. 2021)."""

    rank: int = Field(gt=0)
    """Inner width r of the product."""
    alpha: float = Field(gt=0)
    """The product is scaled by alpha / rank."""
    targets: Literal["all-linear"] | list[str]
    """Linear layers that get one: all of the trunk's, or those with these names, such as [q_proj, v_proj]."""
    base: Literal["full", "4bit"]
    """How the linear layers beside the adapters are kept: in full (``runtime.frozen_precision``), or in 4 bits (QLoRA,
    Dettmers et al. 2023), on one CUDA device only."""
    dropout: float = Field(ge=0, lt=1)
    """Dropout on what the adapters read, in supervised fine-tuning only: reward model, DPO and PPO train without dropout."""
    learning_rate_factor: float = Field(gt=0)
    """The stages' learning rates are multiplied by it where an adapter is trained."""

    @field_validator("targets")
    @classmethod
    def _some_target(cls, targets: Any) -> Any:
        if not targets:
            raise ValueError("found no layer, expected all-linear or a list of names such as [q_proj, v_proj]")
        return targets


class AdamConfig(Config):
    """One AdamW optimizer."""

    learning_rate: float = Field(gt=0)
    """Peak learning rate."""
    beta1: float = Field(ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = Field(ge=0, lt=1)
    """Decay of the second moment."""
    epsilon: float = Field(gt=0)
    """Keeps the step of a parameter with tiny gradients finite; where it is added, epsilon_placement says."""
    epsilon_placement: Literal["after_correction", "before_correction"]
    """Add epsilon to the root of the second moment after its bias correction (PyTorch) or before it (TensorFlow 1, so
    the 2019 code): the latter takes smaller steps early in training."""
    weight_decay: float = Field(ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(gt=0)
    """Gradients are scaled down to this global L2 norm."""

    def beside(self, adapter: AdapterConfig | None) -> "AdamConfig":
        """As it trains an adapter where there is one."""
        factor = 1.0 if adapter is None else adapter.learning_rate_factor
        return self.model_copy(update={"learning_rate": self.learning_rate * factor})


class ArchitectureConfig(Config):
    """A Llama-shaped causal LM built from scratch."""

    hidden_size: int = Field(gt=0)
    """Width D of the residual stream."""
    layers: int = Field(gt=0)
    """Number of decoder layers."""
    heads: int = Field(gt=0)
    """Attention heads; must divide hidden_size."""
    intermediate_size: int = Field(gt=0)
    """Width of the gated MLP."""
    rope_theta: float = Field(gt=0)
    """Base of the rotary position embedding."""
    embedding_std: float = Field(gt=0)
    """Standard deviation of the token embedding at initialisation."""
    projection_std: float = Field(gt=0)
    """Standard deviation of every other matrix at initialisation."""
    tie_embeddings: bool
    """Share the token embedding with the output projection."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "ArchitectureConfig":
        if self.hidden_size % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide hidden_size ({self.hidden_size})")
        return self


class TokenizerConfig(Config):
    """A tokenizer trained on the given pretraining text."""

    kind: Literal["word_level", "bpe"]
    """word_level splits at spaces; bpe is byte-level byte-pair encoding."""
    vocab_size: int = Field(gt=8)
    """Upper bound on the number of entries, special tokens included."""


class ModelConfig(Config):
    """The base model: adopted from a folder or a hub, or built from scratch."""

    name_or_path: str | None
    """Local Hugging Face folder or hub name of a causal LM; null builds one from scratch."""
    revision: str | None
    """Branch, tag or commit when name_or_path is a hub name."""
    context_tokens: int = Field(gt=1)
    """Longest sequence the model sees: prompt plus response."""
    architecture: ArchitectureConfig | None
    """Shape of the model built from scratch; null when name_or_path is given."""
    tokenizer: TokenizerConfig | None
    """Tokenizer trained for the model built from scratch; null when name_or_path is given."""

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelConfig":
        scratch = self.architecture is not None and self.tokenizer is not None
        if self.name_or_path is None and not scratch:
            raise ValueError(
                "name_or_path is null, so both architecture and tokenizer must be given; choose model=scratch, which has both, "
                "or set model.name_or_path to a folder"
            )
        if self.name_or_path is not None and (self.architecture is not None or self.tokenizer is not None):
            raise ValueError(
                f"name_or_path is {self.name_or_path!r}, so architecture and tokenizer must be null "
                "(model=pretrained sets them so)"
            )
        return self


class RuntimeConfig(Config):
    """Where and how fast; nothing here changes what a result means."""

    device: str
    """torch device of the training stages: cpu, cuda, cuda:1."""
    precision: Literal["fp32", "bf16"]
    """bf16 runs forward and backward under autocast; weights and optimizer stay fp32."""
    frozen_precision: Literal["fp32", "bf16"]
    """Weights of networks that are not trained: the reference and the reward models of PPO, the reference of DPO, the base
    under an adapter. bf16 takes half the memory and rounds them; what is trained and saved is fp32."""
    gradient_checkpointing: bool
    """Decoder layers keep only their input for the backward pass, which computes the rest again: less memory, one more
    forward pass, equal gradients."""
    threads: int = Field(gt=0)
    """CPU threads torch uses inside one task."""
    processes: int = Field(gt=0)
    """Processes that divide the work of one stage, each with, under ``device: cuda``, a GPU of its own: pretraining,
    fine-tuning, the reward model, DPO, PPO and the measurement of policies. Data preparation gives each its share of the rows,
    on the CPU and without weights. Results do not depend on it."""
    shard: Literal["none", "full"]
    """What each of those processes keeps of a network in training: all weights, or its part of every weight, gradient and
    optimizer state, from which a layer is put together when it is used. Results do not depend on it."""
    tokens_per_microbatch: int = Field(gt=0)
    """Tokens, padding included, in one forward and backward pass."""
    generation_batch: int = Field(gt=0)
    """Sequences sampled side by side; fewer where memory turns out to be short, which changes no response."""
    runner: Literal["threads", "processes", "ray", "dask"]
    """Prefect task runner. Under ray, the ranks of a divided stage are placed wherever the cluster has room for them."""
    ray_address: str | None
    """Of the Ray cluster that ``runner: ray`` uses, ``host:port`` or ``auto`` for the one of this machine. null: the environment
    variable RAY_ADDRESS, or else a cluster that the run starts on this machine and ends."""
    max_workers: int = Field(gt=0)
    """Tasks that may run at the same time."""
    checkpoint_every: int = Field(gt=0)
    """Training steps between two checkpoints (PPO: iterations)."""
    checkpoint_minutes: float = Field(gt=0)
    """A step that ends this long after the last checkpoint gets one too, for training whose steps are slow."""
    stop_seconds: float | None = Field(ge=0)
    """Most time that a run gives its training stages to finish their step and save when it is told to stop. A step that
    needs longer, by what the steps before it took, is not waited for. null waits for as long as the steps under way need."""
    debug: bool
    """Check costly invariants at run time, such as the sum of per-token rewards."""
    progress: bool
    """Show a progress bar per stage where there is a terminal; else, or without one, a line at each stage's start and end."""

    @property
    def ray_cluster(self) -> str | None:
        """Address of the cluster that is there already; None for one of the run's own."""
        return self.ray_address or os.environ.get("RAY_ADDRESS")

    @model_validator(mode="after")
    def _somebody_to_share_with(self) -> "RuntimeConfig":
        if self.shard != "none" and self.processes == 1:
            raise ValueError(
                f"shard is {self.shard} and processes is 1, expected at least 2 that divide the weights; set processes, or "
                "shard=none"
            )
        return self
