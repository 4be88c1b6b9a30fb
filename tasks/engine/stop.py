"""How a run asks its stages to save and end, and learns how far they came.

A run has a folder ``<store>/runs/<run id>/``. The run's own process puts a file ``stop`` there; whoever trains looks for it
between two steps. A file reaches threads, processes and the workers of other machines alike, as long as they share the
store, and asking whether it is there takes microseconds.
"""

import shutil
from pathlib import Path

_TRAINING = "training-"
_SAVED = "saved-"


class StopSign:
    """The stop file of one run, and the notes that its stages leave beside it.

    Args:
        store: root of the artifact store.
        run: id of the pipeline's run; empty for a stage that belongs to no run, which nobody stops this way.
    """

    def __init__(self, store: Path | str, run: str) -> None:
        self.folder = Path(store) / "runs" / run if run else None

    def ask(self) -> None:
        """Ask every stage of the run to save and end."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "stop").touch()

    def asked(self) -> bool:
        """Whether the run was told to stop."""
        return self.folder is not None and (self.folder / "stop").exists()

    def begin_training(self, stage: str) -> None:
        """Note that a stage is worth waiting for, because it can save what it has."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{_TRAINING}{stage}").touch()

    def end_training(self, stage: str) -> None:
        """Take that note away again, if there is one."""
        if self.folder is not None:
            (self.folder / f"{_TRAINING}{stage}").unlink(missing_ok=True)

    def is_training(self, stage: str = "*") -> bool:
        """Whether a stage of the run, or this one, trains, or has trained and is publishing its result."""
        return self.folder is not None and any(self.folder.glob(f"{_TRAINING}{stage}"))

    def saved(self, stage: str, words: str) -> None:
        """Note how far a stage came before it ended as it was told to."""
        if self.folder is not None:
            (self.folder / f"{_SAVED}{stage}").write_text(words, encoding="utf-8")

    def has_saved(self, stage: str) -> bool:
        """Whether a stage noted how far it came."""
        return self.folder is not None and (self.folder / f"{_SAVED}{stage}").exists()

    def results(self) -> list[str]:
        """What the stages noted, in words."""
        found = sorted(self.folder.glob(f"{_SAVED}*")) if self.folder is not None else []
        return [path.read_text(encoding="utf-8") for path in found]

    def remove(self) -> None:
        """Take the folder away when the run has ended."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
