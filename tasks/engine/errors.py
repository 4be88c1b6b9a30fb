"""Errors a user can act on: one sentence that says what is wrong, where, what was found, what was expected, what to do.

Command lines print the sentence and exit with a non-zero status; no traceback. Anything else is a bug of ours and keeps
its traceback.
"""


class PlumblineError(ValueError):
    """Something the user can put right."""


class ConfigError(PlumblineError):
    """A configuration that cannot be run."""


class TrackingAway(ConfigError):
    """A tracking server or database that cannot be reached just now."""


class DataError(PlumblineError):
    """Input data that cannot be used."""


class ModelError(PlumblineError):
    """A model or tokenizer that cannot be used."""


class ArtifactError(PlumblineError):
    """The artifact store is missing something, holds something damaged, or cannot be written."""


class JudgeError(PlumblineError):
    """A judge that cannot be asked, or does not give verdicts."""


class RewardError(PlumblineError):
    """A reward of the user's own that fails, or gives something else than numbers."""


class AwaitingLabels(PlumblineError):
    """A run that can go on only when people have labelled more.

    ``batch`` is the folder of what they are asked, ``wanted`` how many labels are enough.
    """

    def __init__(self, sentence: str, batch: str, wanted: int) -> None:
        super().__init__(sentence, batch, wanted)
        self.sentence, self.batch, self.wanted = sentence, batch, wanted

    def __str__(self) -> str:
        return self.sentence


class TrainingDiverged(PlumblineError):
    """A training metric is no longer a finite number."""


class NothingToLearn(PlumblineError):
    """A training whose signal tells nothing apart."""


class Interrupted(PlumblineError):
    """A stage was told to stop, saved what it had, and ended."""


class WorkerKilled(PlumblineError):
    """A process that ran a stage was killed from outside, often for its memory."""
