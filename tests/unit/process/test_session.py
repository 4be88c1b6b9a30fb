"""What happens while a local server starts; the server itself is real in the integration tests."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from flows.process import session


@pytest.mark.parametrize("broken", [False, True])
def test_work_is_done_while_the_server_starts(broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    server = MagicMock()
    server.kill.side_effect = lambda: order.append("kill")
    server.wait_until_up.side_effect = lambda: order.append("wait")
    monkeypatch.setattr(session, "_announced", lambda _url: nullcontext())
    monkeypatch.setattr(session, "_settle", lambda _seconds: order.append("settle"))
    monkeypatch.setattr(session, "OwnServer", lambda: (order.append("start"), server)[1])
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    from prefect.settings import PREFECT_API_URL, temporary_settings

    def work() -> None:
        order.append("work")
        if broken:
            raise RuntimeError("broken")

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        if broken:
            with pytest.raises(RuntimeError, match="broken"), session.prefect_session(meanwhile=work):
                order.append("inside")
            assert order == ["start", "work", "kill"], "no server outlives a command that could not start"
        else:
            with session.prefect_session(meanwhile=work):
                order.append("inside")
            assert order == ["start", "work", "wait", "inside", "settle"]


@pytest.mark.parametrize("known", [True, False])
def test_a_server_started_ahead_is_the_session_s_and_makes_no_database_before_it(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers: list[MagicMock] = []
    monkeypatch.setattr(session, "OwnServer", lambda: (servers.append(MagicMock()), servers[-1])[1])
    monkeypatch.setattr(session, "_announced", lambda _url: nullcontext())
    monkeypatch.setattr(session, "_settle", lambda _seconds: None)
    monkeypatch.setattr(session.atexit, "register", lambda _function: None)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    if known:
        (tmp_path / "prefect.db").touch()
    from prefect.settings import PREFECT_API_URL, temporary_settings

    session.start_ahead()
    assert servers[0].serve.call_count == known
    with temporary_settings(restore_defaults={PREFECT_API_URL}), session.prefect_session():
        assert len(servers) == 1
        servers[0].serve.assert_called()
        servers[0].wait_until_up.assert_called_once()
    servers[0].end.assert_called_once()
    servers[0].kill.assert_not_called()


def test_a_server_started_ahead_and_never_used_ends_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = MagicMock()
    monkeypatch.setattr(session, "OwnServer", lambda: server)
    at_exit: list[Callable[[], None]] = []
    monkeypatch.setattr(session.atexit, "register", at_exit.append)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    (tmp_path / "prefect.db").touch()
    session.start_ahead()
    server.kill.assert_not_called()
    for function in at_exit:
        function()
    server.kill.assert_called_once()
