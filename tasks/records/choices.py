"""Words that configurations and records share; nothing heavy is imported here, so that help and mistakes come at once."""

from typing import Literal

Margin = Literal["none", "rank"]
"""Whether a pair's distance in its ranking is asked of the loss (Llama 2, arXiv:2307.09288, section 3.2.2)."""
BEST, BY_LOT = "best", "by_lot"
"""Responses that rejection sampling chose by the reward model; the control, chosen by lot."""
