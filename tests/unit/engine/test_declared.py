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
    "asked",
    [
        "import flows.instructgpt, flows.run.release",
        "from flows.ask.explain import plan_of; assert len(plan_of(config)) == 15",
        "from flows.ask.preflight import check; check(config)",
        "from flows.ask.dry_run import page; assert 'PPO' in page(config)",
        "from flows.ask.doctor.page import memory_line; from flows.ask.doctor.patient import Patient; "
        "assert 'GiB' in memory_line(Patient(config))",
    ],
)
def test_what_is_asked_about_a_run_of_the_embedded_world_needs_nothing_heavy(asked: str, tmp_path: Path) -> None:
    config = f"from flows.config import load; config = load(['scale=miniature', 'tracking.root={tmp_path}'])"
    program = f"import sys; {config}; {asked}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
