"""What is deployed where: compose file, image, workflow and templates, read by real parsers; serving without a work pool."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments import serve
from flows.config import RLHFConfig
from tasks.engine.errors import ConfigError

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deployments" / "compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if name != "database"}


def test_every_service_restarts_and_waits_for_what_it_needs() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"} and "healthcheck" in services[other], f"{name} -> {other}"
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"], name


def test_one_image_serves_all_and_one_more_has_gpus() -> None:
    assert {service["image"] for service in OURS.values()} == {"plumbline", "plumbline-gpu"}
    built = [name for name, service in OURS.items() if "build" in service]
    assert built == ["prefect", "worker-gpu"]
    assert OURS["worker-gpu"]["profiles"] == ["gpu"]
    (devices,) = OURS["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices["capabilities"] == ["gpu"]


def test_both_servers_use_postgresql_and_listen_on_this_machine() -> None:
    assert "postgresql+asyncpg://" in OURS["prefect"]["environment"]["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    assert "--backend-store-uri postgresql://" in OURS["mlflow"]["command"]
    assert "sqlite" not in (ROOT / "deployments" / "compose.yaml").read_text()
    assert COMPOSE["configs"]["databases"]["content"] == "CREATE DATABASE mlflow;"
    for service in OURS.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_secrets_come_from_the_environment() -> None:
    for name, service in COMPOSE["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search("KEY|PASSWORD", key):
                assert re.fullmatch(r"\$\{\w+:[-?][^}]*\}", value), f"{name}: {key}"


def test_the_image_has_an_unprivileged_user_and_what_it_copies_is_let_in() -> None:
    lines = (ROOT / "deployments" / "Dockerfile").read_text().splitlines()
    assert "USER plumbline" in lines and lines.index("USER plumbline") < len(lines) - 2
    assert any(line.startswith("ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu") for line in lines)
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    assert copied == let_in and all((ROOT / name).exists() for name in copied)


def test_the_workflow_calls_make_test() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["jobs"]["test"]["steps"][-1] == {"run": "make test"}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            assert "uses" in step or step["run"].removeprefix("make ") in targets


@pytest.mark.parametrize("path", [".pre-commit-config.yaml", "CITATION.cff", ".github/ISSUE_TEMPLATE/bug.yml"])
def test_habits_parse(path: str) -> None:
    assert isinstance(yaml.safe_load((ROOT / path).read_text()), dict)


def test_one_version_everywhere() -> None:
    (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), flags=re.M)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)[0] == version


def test_serving_takes_a_schedule_and_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    asked = serve.arguments(["ppo.beta=0.1", "--cron", "0 2 * * *", "scale=miniature"])
    assert (asked["cron"], asked["limit"], asked["tags"]) == ("0 2 * * *", 1, ["rlhf"])
    config = RLHFConfig.model_validate(asked["parameters"]["config"])
    assert (config.ppo.beta, config.tracking.root, config.tracking.run_name) == (0.1, ".plumbline", "served")
    with pytest.raises(ConfigError, match="bta"):
        serve.arguments(["ppo.bta=0.1"])


def test_serving_needs_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(ConfigError, match="PREFECT_API_URL is not set"):
        serve.arguments([])
