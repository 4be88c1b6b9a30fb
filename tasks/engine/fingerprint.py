"""What a stage's result depends on, as a fingerprint.

A fingerprint covers the stage's configuration, the digests of its inputs and the source it runs: every file of the
stage's folder and every module of this project that they import, transitively. It does not cover device, micro-batch,
run ids, clocks or paths. Comments and docstrings do not count: the abstract syntax tree is what is hashed. The source of the
embedded world counts only where the world is run: for a stage that has an input ``world``, or whose configuration calls it.
"""

import ast
import hashlib
import json
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from tasks.engine.artifacts import ArtifactRef
from tasks.engine.config import Config

PROJECT = Path(__file__).resolve().parents[2]
# The edge: how a stage is started, stopped, resumed, recorded and cached says nothing about what it computes.
EDGE = {
    "tasks.engine.caching",
    "tasks.engine.collective",
    "tasks.engine.gang",
    "tasks.engine.gang_on_ray",
    "tasks.engine.memory",
    "tasks.engine.parent",
    "tasks.engine.checkpoint",
    "tasks.engine.declared",
    "tasks.engine.digests",
    "tasks.engine.fingerprint",
    "tasks.engine.os_errors",
    "tasks.engine.progress",
    "tasks.engine.tracking",
    "tasks.engine.tracking.server",
    "tasks.engine.tracking.outbox",
    "tasks.engine.tracking.runs",
    "tasks.engine.stage",
    "tasks.engine.stop",
    "tasks.engine.context",
    "tasks.engine.artifacts",
    "tasks.engine.locks",
    "tasks.engine.remote",
    "tasks.engine.shared",
    "tasks.engine.errors",
}


WORLD = "tasks.sandbox"


def _module_path(name: str) -> Path | None:
    base = PROJECT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        node.body = [  # type: ignore[attr-defined]
            child
            for child in body
            if not (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            )
        ]
    return tree


class _Code(NamedTuple):
    """What counts of a file: which modules it names, and its code."""

    names: frozenset[str]
    digest: str


@lru_cache(maxsize=4096)  # by text: files that did not change are parsed once, however many stages share them
def _read(text: str) -> _Code:
    tree = ast.parse(text)
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    return _Code(frozenset(found), _short_digest(ast.dump(_without_docstrings(tree))))


def imported_modules(path: Path) -> set[str]:
    """Names of the modules of this project that a file imports, at any depth of its functions."""
    names = _read(path.read_text(encoding="utf-8")).names
    return {name for name in names if name.split(".")[0] == "tasks" and _module_path(name)}


def source_files(package: str, world: bool = True) -> dict[str, Path]:
    """Module name -> file, for a stage's folder and everything of this project that it imports, ``world`` included or not."""
    folder = PROJECT.joinpath(*package.split("."))
    pending = {f"{package}.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"}
    for path in folder.rglob("*"):
        if path.is_dir() and (path / "__init__.py").is_file():
            relative = ".".join(path.relative_to(PROJECT).parts)
            pending |= {f"{relative}.{module.stem}" for module in path.glob("*.py") if module.stem != "__init__"}
    seen: dict[str, Path] = {}
    while pending:
        name = pending.pop()
        found = _module_path(name)
        if name in seen or name in EDGE or found is None or (f"{name}.".startswith(f"{WORLD}.") and not world):
            continue
        if name == package:  # declares the stage: its title, and what it asks of a runner
            continue
        seen[name] = found
        pending |= imported_modules(found)
    for path in sorted(folder.rglob("*.jinja")):
        seen[path.relative_to(PROJECT).as_posix()] = path
    return dict(sorted(seen.items()))


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def source_digests(package: str, world: bool = True) -> dict[str, str]:
    """Module name -> digest of its code, comments and docstrings apart."""
    digests = {}
    for name, path in source_files(package, world).items():
        text = path.read_text(encoding="utf-8")
        digests[name] = _read(text).digest if path.suffix == ".py" else _short_digest(text)
    return digests


def dependencies(
    package: str, config: Config | Mapping[str, Any], inputs: Mapping[str, ArtifactRef], home: Path | None = None
) -> dict[str, Any]:
    """The three parts of a fingerprint, as plain JSON types; ``home`` is the folder around the store."""
    fields = config.fingerprint_fields() if isinstance(config, Config) else dict(config)
    if isinstance(config, Config) and home is not None:
        fields |= config.fields_that_grow(home, {name: ref.digest for name, ref in inputs.items()})
    world = "world" in inputs or (isinstance(config, Config) and config.calls_the_world)
    return {
        "config": fields,
        "inputs": {name: ref.digest for name, ref in sorted(inputs.items())},
        "source": source_digests(package, world),
    }


def fingerprint(depends_on: Mapping[str, Any]) -> str:
    """20 hex digits that stand for everything a result depends on."""
    text = json.dumps(depends_on, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def program() -> str:
    """What runs here, in words, to be compared with what runs on another machine: this program, the code of its stages (between
    two releases the version stays), and torch."""
    import torch

    files = sorted(path for path in (PROJECT / "tasks").rglob("*") if path.suffix in (".py", ".jinja"))
    code = _short_digest("".join(f"{path.relative_to(PROJECT)}\n{path.read_text(encoding='utf-8')}" for path in files))
    return f"plumbline {metadata.version('plumbline')} (source {code[:8]}) with torch {torch.__version__}"
