"""The release as a task."""

import json
import os
import shutil
from pathlib import Path

import yaml

from tasks.engine.stage import Metrics, Workshop
from tasks.release.card import SETTINGS, CardInputs, model_card
from tasks.release.config import POLICY, ReleaseJob
from tasks.release.mlmodel import write_mlmodel
from tasks.results.comparison import COMPARISON, PolicyComparison
from tasks.results.decision import DECISION, GateDecision

DEFAULTS = ({"runtime": "cpu"}, {"tracking": "local"}, {"sweep": "tradeoff"})
"""Groups of ``conf/`` that say nothing about the policy; whoever trains it again has their own."""
HOOKS = tuple({f"override hydra/{group}": name} for group, name in (("output", "runs"), ("callbacks", "sweep")))
"""What ``conf/rlhf.yaml`` sets of Hydra: where its folders lie, and what a multirun calls."""


def release_policy(shop: Workshop, config: ReleaseJob) -> Metrics:
    """The policy's model folder, with a model card and the settings to train it again.

    ``shop.about`` is the policy's name. Inputs: ``policy``, ``evaluation``, ``gate``, ``data``; the others are
    named in the card.
    """
    source, folder = shop.input("policy"), shop.folder / POLICY
    sentinel = json.loads((source / "sentinel.json").read_text(encoding="utf-8"))
    released = shop.inputs["policy"]
    manifest = shop.store.manifest(released.stage, released.fingerprint)
    assert manifest is not None, "an opened artifact has a manifest"
    _link(source / "policy", folder)
    write_mlmodel(folder)
    card = model_card(
        CardInputs(
            policy=shop.about,
            job=config,
            comparison=PolicyComparison.model_validate_json(
                (shop.input("evaluation") / COMPARISON).read_text(encoding="utf-8")
            ),
            decision=GateDecision.model_validate_json((shop.input("gate") / DECISION).read_text(encoding="utf-8")),
            audit=json.loads((shop.input("data") / "audit.json").read_text(encoding="utf-8")),
            warnings=[warning["reason"] for warning in sentinel["warnings"]],
            digests={name: ref.digest for name, ref in shop.inputs.items()},
            weights={
                name.partition("/")[2]: digest
                for name, digest in manifest.files.items()
                if name.startswith("policy/") and name.endswith(".safetensors")
            },
        )
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    settings = {"defaults": [*DEFAULTS, "_self_", *HOOKS]} | config.settings
    (folder / SETTINGS).write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
    shop.log.file(folder / "README.md")
    return {}


def _link(source: Path, target: Path) -> None:
    """The files of a model folder once more, without their bytes where the file system can share them."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, place)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(path, place)
