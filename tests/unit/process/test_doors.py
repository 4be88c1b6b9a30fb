"""What a page from elsewhere, open in the same browser, can ask of the servers that we start."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from flows import pages
from flows.process import environment, own_server
from flows.process.own_server import OwnServer
from tasks.engine.errors import ConfigError

ELSEWHERE = "http://evil.example"


def ask(url: str, method: str, headers: dict[str, str], body: Any = None) -> tuple[int, dict[str, str]]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, {name.lower(): value for name, value in reply.headers.items()}
    except urllib.error.HTTPError as error:
        return error.code, {name.lower(): value for name, value in error.headers.items()}


@pytest.mark.slow
def test_the_runs_own_prefect_server_is_closed_to_other_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{tmp_path / 'prefect.db'}")
    server = OwnServer()
    try:
        server.serve()
        server.wait_until_up()
        asks = {"Origin": ELSEWHERE, "Access-Control-Request-Method": "POST"}
        _, allowed = ask(f"{server.url}/flows/", "OPTIONS", asks)
        assert "access-control-allow-origin" not in allowed
        own = f"http://127.0.0.1:{server.port}"
        _, allowed = ask(f"{server.url}/flows/", "OPTIONS", asks | {"Origin": own})
        assert allowed["access-control-allow-origin"] == own
        # A form needs no permission of the browser's; it lacks the token.
        status, _ = ask(f"{server.url}/flows/", "POST", {"Content-Type": "application/json"}, {"name": "planted"})
        assert status == 403
        with temporary_settings({PREFECT_API_URL: server.url}), get_client(sync_client=True) as client:
            assert client.create_flow_from_name("ours")
            assert client._client.post("/task_runs/count", json={}).json() == 0
    finally:
        server.end()


def test_a_server_that_takes_too_long_is_not_called_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    server = OwnServer.__new__(OwnServer)
    server.url, server._process, server._one_at_a_time = "http://127.0.0.1:9/api", MagicMock(), MagicMock()
    server._process.poll.return_value = None
    monkeypatch.setattr(own_server, "START_SECONDS", 0.0)
    with pytest.raises(ConfigError, match=r"still starting after 0 s.* run the same command again"):
        server.wait_until_up()
    server._process.poll.return_value = 3
    with pytest.raises(ConfigError, match=r"did not start .exit status 3"):
        server.wait_until_up()


def test_both_pages_are_closed_to_other_pages_and_listen_here_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *environment.closed_to_other_pages(1),
        "PREFECT_SERVER_UI_API_URL",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
    ):
        monkeypatch.delenv(name, raising=False)
    prefect = pages.command("prefect", 4321, [])
    assert prefect[prefect.index("--host") + 1] == "127.0.0.1"
    own = "http://127.0.0.1:4321,http://localhost:4321"
    assert os.environ["PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"] == own
    assert os.environ["PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED"] == "true"
    mlflow = pages.command("mlflow", 4321, [])
    assert mlflow[mlflow.index("--host") + 1] == "127.0.0.1"
    assert mlflow[mlflow.index("--allowed-hosts") + 1] == "127.0.0.1:4321,localhost:4321"
    assert mlflow[mlflow.index("--cors-allowed-origins") + 1] == own
