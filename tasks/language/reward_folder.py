"""A reward model that is given by its folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.engine.digests import file_digest
from tasks.engine.errors import ModelError
from tasks.language.loading import HEAD_FILE, SCORE
from tasks.language.types import PreTrainedTokenizerBase
from tasks.language.vocabulary import rows_for_text, rows_of

if TYPE_CHECKING:
    from tasks.language.models import ScalarModel

INDEPENDENT_KNOB = "evaluation.judges.independent_reward_model"


def check_reward_model(folder: Path, knob: str = INDEPENDENT_KNOB) -> None:
    """Whether a folder holds a reward model, as far as its files tell; ``knob`` is where it was named.

    Raises:
        ModelError: it does not.
    """
    missing = [name for name in ("config.json", HEAD_FILE) if not (folder.expanduser() / name).is_file()]
    if missing:
        raise ModelError(
            f"{knob}: {folder} has no {' and no '.join(missing)}; give the `model` folder of a reward model that this "
            "program trained"
        )


def check_scores(folder: Path, knob: str) -> None:
    """Whether the weights of a folder, ours or others', have a head of one output; no weight is read.

    Raises:
        ModelError: they have none: a causal LM would otherwise be told hours later.
    """
    if not (folder.expanduser() / HEAD_FILE).is_file() and shapes_in(folder, knob).get(SCORE, [0])[0] != 1:
        raise ModelError(
            f"{knob}: {folder} has no head of one output ({SCORE}) among its weights, expected a reward model: a decoder such as "
            "LlamaForSequenceClassification with num_labels=1; give another folder"
        )


def shapes_in(folder: Path, knob: str) -> dict[str, list[int]]:
    """Shape of every tensor in a folder's files; none is read.

    Raises:
        ModelError: there is no such file, or one is damaged.
    """
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.expanduser().glob("*.safetensors"))
    if not files:
        raise ModelError(f"{knob}: {folder} has no weights (*.safetensors), expected a reward model; check the path")
    found: dict[str, list[int]] = {}
    for path in files:
        try:
            with safe_open(path, framework="numpy") as weights:
                found |= {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{knob}: {path} cannot be read ({error}), expected safetensors; copy the file again"
            ) from error
    return found


def check_other_weights(folder: Path, optimised: Path, knob: str = INDEPENDENT_KNOB) -> None:
    """A reward model that a policy was optimised against is no independent judge of it, wherever its copy lies.

    Raises:
        ModelError: both folders hold the same weights.
    """
    mine, theirs = (
        sorted(file_digest(file) for file in path.expanduser().glob("*.safetensors")) for path in (folder, optimised)
    )
    if mine == theirs:
        raise ModelError(
            f"{knob}: {folder} holds the weights of the reward model that was optimised, expected another one; train it with "
            "another seed or on other comparisons, or set null"
        )


def load_reward_model(
    folder: Path, device: str, tokenizer: PreTrainedTokenizerBase, knob: str = INDEPENDENT_KNOB
) -> "ScalarModel":
    """A reward model given by its folder; it must know the ids that this tokenizer gives to text. ``knob`` is where it was
    named.

    Raises:
        ModelError: there is none, or its embedding has too few rows.
    """
    from tasks.language.models import ScalarModel

    model = ScalarModel.load(folder.expanduser(), device).eval()
    known, needed = rows_of(model.backbone), rows_for_text(tokenizer)
    if known < needed:
        raise ModelError(
            f"{knob}: {folder} knows {known} tokens, the tokenizer of the evaluated policies gives text ids up to "
            f"{needed - 1}; give a reward model trained with the same tokenizer"
        )
    return model
