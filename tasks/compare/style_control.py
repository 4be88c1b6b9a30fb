"""Win rates as if both responses were written in one style: equally long, with as many headers, list items and bold phrases.

    P(policy preferred) = sigmoid(quality + sum over features of weight * d / std(d)),  d = (mine - theirs) / (mine + theirs + 1)

The style-controlled win rate is what the model predicts when all d are 0. The features and d are those of LMArena. Two
differences: d is not centred, because a policy meets one opponent here and a mean difference in style is what shall be taken
out; and the coefficients are shrunk by a ridge chosen by cross-validation, as in the length-controlled win rate.

Source: Li, Angelopoulos and Chiang 2024, "Does style matter? Disentangling style and substance in Chatbot Arena".
"""

import re
from collections.abc import Sequence

import numpy as np

from tasks.compare.length_control import Strength, rate_without
from tasks.results.win_rate import Floats, Interval, Resampling

_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_MARKDOWN = (
    re.compile(r"^ {0,3}#{1,6}\s+\S", re.MULTILINE),  # headers
    re.compile(r"^\s*(?:\d+[.)]|[-*+])\s+\S", re.MULTILINE),  # items of ordered and unordered lists
    re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),  # bold phrases
)
FEATURES = 1 + len(_MARKDOWN)


def style_of(text: str) -> list[int]:
    """Characters, headers, list items, bold phrases; markdown inside code blocks does not count."""
    prose = _CODE.sub("", text)
    return [len(text), *(len(pattern.findall(prose)) for pattern in _MARKDOWN)]


def style_differences(mine: Sequence[str], theirs: Sequence[str]) -> Floats:
    """(responses, FEATURES) of the normalised differences, each in (-1, 1)."""
    first, second = (np.array([style_of(text) for text in texts], dtype=np.float64) for texts in (mine, theirs))
    return np.asarray((first - second) / (first + second + 1))


def style_controlled(
    outcomes: Floats, mine: Sequence[str], theirs: Sequence[str], strength: Strength, how: Resampling
) -> Interval | None:
    """Style-controlled win rate with a bootstrap interval over prompts.

    Args:
        outcomes: (prompts,) share of each prompt won, in [0, 1]; NaN where it was not judged.
        mine: the policy's responses.
        theirs: its opponent's.
        strength: the penalties.
        how: the bootstrap; coefficients are fitted anew in every resample, the penalty is kept.

    Returns:
        None where fewer prompts than folds were judged, and where the two never differ in markdown: then style is length.
    """
    judged = np.isfinite(outcomes)
    differences = style_differences(mine, theirs)[judged]
    if len(differences) < strength.folds or not differences[:, 1:].any():
        return None
    spread = differences.std(axis=0)
    used = spread > 0
    terms = differences[:, used] / spread[used]
    features = np.concatenate([np.ones((len(terms), 1)), terms], axis=1)
    keep = np.array([1.0, *[0.0] * terms.shape[1]])
    return rate_without(features, keep, outcomes[judged], strength, how)
