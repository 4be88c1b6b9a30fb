"""What happens while a local server starts; the server itself is real in the integration tests."""

from contextlib import nullcontext
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
