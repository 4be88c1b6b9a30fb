"""Stages are declared without what they run: the declaration is one, true, and light."""

import inspect
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import tasks
from tasks.engine.declared import Stage

ROOT = Path(__file__).parents[3]
PACKAGES = [import_module(f"tasks.{found.name}") for found in pkgutil.iter_modules(tasks.__path__) if found.ispkg]
DECLARED = [
    (package, name, stage) for package in PACKAGES for name, stage in vars(package).items() if isinstance(stage, Stage)
]
HEAVY = {"torch", "transformers", "datasets", "prefect", "mlflow", "matplotlib", "scipy", "pandas"}


@pytest.mark.parametrize(("package", "name", "stage"), DECLARED, ids=[name for _, name, _ in DECLARED])
def test_a_declaration_names_a_story_of_its_own_package(package: ModuleType, name: str, stage: Stage) -> None:
    story = stage.load()
    assert stage.package == package.__name__ and story.__name__ == name == stage.name
    shop, _config = inspect.signature(story).parameters
    assert shop == "shop"
    # A module of that name would take the declaration's place in the package when it is imported.
    assert name not in {found.name for found in pkgutil.iter_modules(package.__path__)}


def test_every_stage_of_the_paper_is_declared() -> None:
    names = {name for _, name, _ in DECLARED}
    assert {
        "prepare_data",
        "fine_tune",
        "train_reward_model",
        "train_ppo",
        "compare_policies",
        "release_policy",
    } <= names
    assert len(names) == len(DECLARED) > 15


@pytest.mark.parametrize(
    "module", ["flows.instructgpt", "flows.run.release", "flows.ask.explain", "flows.ask.preflight"]
)
def test_the_order_of_the_stages_its_explanation_and_its_checks_need_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
