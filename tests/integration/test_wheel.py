"""The wheel, installed into an environment of its own, runs the miniature pipeline in a folder that is no clone."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    own = ("PLUMBLINE_HOME", "PYTHONPATH", "PREFECT_HOME", "PREFECT_LOCAL_STORAGE_PATH", "PREFECT_API_URL")
    clean = {name: value for name, value in os.environ.items() if name not in own}
    done = subprocess.run(
        command, cwd=cwd, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_the_wheel_runs_outside_a_clone(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy: setuptools leaves its build folder there
    for name in ("conf", "flows", "tasks", "deployments"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path)
    run(*pip, source, cwd=tmp_path)
    (wheel,) = tmp_path.glob("plumbline-*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    (packages,) = (tmp_path / "venv" / "lib").glob("python3*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # torch and the like, not again
    python, plumbline = (tmp_path / "venv" / "bin" / name for name in ("python", "plumbline"))
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=tmp_path)

    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "tasks").mkdir(parents=True)  # a folder of that name in the way
    where = run(python, "-P", "-c", "import flows.config as c; print(c.CONF, c.__file__)", cwd=elsewhere)
    assert where.split() == [str(packages / "conf"), str(packages / "flows" / "config.py")]
    said = run(plumbline, "rlhf", "scale=miniature", "runtime.progress=false", cwd=elsewhere)
    assert "Win %" in said and "PPO-ptx" in said
    assert {path.name for path in elsewhere.iterdir()} == {"tasks", ".plumbline"}
    assert not (packages / ".plumbline").exists()
    listed = run(plumbline, "store", "list", cwd=elsewhere)
    assert "ppo" in listed and "reward_model" in listed
