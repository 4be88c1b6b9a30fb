"""What a labeler is: somebody or something that ranks K responses to a prompt, with ties."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks.comparisons.sample import Candidates
from tasks.records.records import Comparison

Rankings = Mapping[str, Sequence[Comparison]]
"""Item -> its rankings: none where the labeler left it out, several where several people ranked it."""


class Unranked(NamedTuple):
    """One prompt with its responses, as it is given to labelers."""

    item_id: str
    """Unique in a batch."""
    text: str
    """The prompt as people read it, without the model's layout."""
    candidates: Candidates
    shared: bool
    """Whether every labeler ranks it."""

    @property
    def split(self) -> str:
        """The set that its rankings belong to: train or valid."""
        return self.item_id.partition("/")[0]

    def ranked(self, ranks: list[int], labeler_id: str) -> Comparison:
        """The record of one ranking."""
        return Comparison(
            prompt=self.candidates.prompt,
            completions=self.candidates.completions,
            ranks=ranks,
            labeler_id=labeler_id,
            source_policy=[self.candidates.policy] * len(self.candidates.completions),
            finished=self.candidates.finished,
        )


class Labeler(ABC):
    """Ranks batches."""

    def check(self) -> None:  # noqa: B027  most labelers are always there
        """Whatever can be known to fail before anything is sampled.

        Raises:
            PlumblineError: with its remedy.
        """

    @abstractmethod
    def label(self, items: Sequence[Unranked]) -> Rankings:
        """Rank every item.

        Raises:
            AwaitingLabels: people have not ranked enough yet.
            PlumblineError: the labeler cannot be asked, or returned what is no ranking.
        """

    def measured(self) -> dict[str, float]:
        """What is known of the rankings beside themselves."""
        return {}

    def spent(self) -> dict[str, float]:
        """What the rankings took; tracked and not part of the result, because it depends on what was asked before."""
        return {}
