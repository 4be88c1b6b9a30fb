"""The base model's folder, beyond what loading it tells: ends that disagree, tokens that were never trained."""

import json
from collections.abc import Iterator
from typing import Any

from safetensors import SafetensorError, safe_open

from flows.ask.doctor.finding import found
from flows.ask.doctor.patient import Patient
from tasks.engine.findings import Finding
from tasks.language.chat_layout import ChatLayout
from tasks.language.vocabulary import special_tokens

KEY = "model.name_or_path"
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
"""How families call their embedding, behind what comes before it."""


def ends(patient: Patient) -> Iterator[Finding]:
    """The end of a response must be among the ends that the folder names, or a chat model goes on talking elsewhere."""
    folder, tokenizer = patient.model_folder, patient.tokenizer
    if folder is None or tokenizer is None:
        return
    named = {place for name in ("config.json", "generation_config.json") for place in _ends_in(folder / name)}
    _ = patient.layout  # a chat layout makes its end of turn the EOS
    if named and tokenizer.eos_token_id not in named:
        ids = ", ".join(map(str, sorted(named)))
        yield found(
            "warning",
            KEY,
            f"eos_token_id {ids} in {folder}, and responses end with {tokenizer.eos_token!r} ({tokenizer.eos_token_id})",
            "that id among them",
            f"this program trains and stops at {tokenizer.eos_token!r}; for other programs, add the id to generation_config.json",
        )


def untrained_tokens(patient: Patient) -> Iterator[Finding]:
    """Special tokens that the chat layout writes and whose rows are all alike or 0: nobody trained them."""
    folder, tokenizer, layout = patient.model_folder, patient.tokenizer, patient.layout
    if folder is None or tokenizer is None or not isinstance(layout, ChatLayout):
        return
    from tasks.language.chat_layout import Turn

    written = layout.prompt([Turn("user", "a")]) + layout.end_of_turn
    ids = sorted({tokenizer.convert_tokens_to_ids(token) for token in special_tokens(tokenizer) if token in written})
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as weights:
                name = next((key for key in weights.keys() if key.endswith(EMBEDDINGS)), None)  # noqa: SIM118
                rows = weights.get_tensor(name)[ids].float() if name else None
        except (SafetensorError, OSError, IndexError):  # which the checks of the weights report
            return
        if rows is not None:
            dead = [place for place, row in zip(ids, rows, strict=True) if not row.any()]
            dead = ids if len(ids) > 1 and bool((rows == rows[0]).all()) else dead
            if dead:
                names = ", ".join(tokenizer.convert_ids_to_tokens(dead))
                yield found(
                    "warning",
                    KEY,
                    f"embeddings of {names} that are 0 or all alike, though the chat template writes these tokens",
                    "trained ones",
                    "take the chat model of this base, or a layout in plain words, such as "
                    'data_prep.prompt_layout="Human: {prompt}\\n\\nAssistant:" in a YAML file',
                )


def _ends_in(path: Any) -> list[int]:
    try:
        named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return []
    return [int(place) for place in (named if isinstance(named, list) else [named]) if isinstance(place, int)]
