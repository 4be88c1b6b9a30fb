"""What the command lines do about logging once Hydra has set it up."""

import logging

CHATTY = ("httpx", "httpx2", "distributed")


def tame_logs() -> None:
    """Silence libraries that Hydra made talk; a log file on a full disk misses a line instead of printing tracebacks."""
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)  # Hydra raises every logger's level
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = _skip  # type: ignore[assignment]


def _skip(_record: logging.LogRecord) -> None:
    """The stage that meets the same disk says it in one sentence."""
