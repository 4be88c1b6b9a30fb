"""Ports of the pages."""

import pytest

from flows.pages import check_port
from tasks.engine.errors import ConfigError


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=rf"--port: found {port}, expected 1 to 65535"):
        check_port(port)
