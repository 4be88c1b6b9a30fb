"""The negative log-likelihood that counts only the tokens it should."""

from torch import Tensor

from tasks.language.masked import masked_sum


def summed_nll(
    logprobs: Tensor,  # (B, R) log-probability of each counted token given everything before it
    counted: Tensor,  # (B, R) True where the token counts: response tokens, EOS included
) -> Tensor:  # ()
    """Sum of -log p over the counted tokens, in nats.

    A sum, not a mean: an optimizer batch may be cut into micro-batches in any way when the sum of each is divided
    by the number of counted tokens in the *whole* batch.

    Source: InstructGPT appendix C.1 leaves prompt masking and the reduction open; we count the completion and its
    EOS.
    """
    return -masked_sum(logprobs, counted)
