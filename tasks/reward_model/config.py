"""The knobs of reward-model training."""

from typing import Any, Literal

from pydantic import Field

from tasks.engine.config import AdamConfig, AdapterConfig, Config
from tasks.engine.inputs import folder_fields
from tasks.records.choices import Margin


class RewardModelConfig(Config):
    """Training of the scalar head and its backbone on rankings (InstructGPT section 3.5 and appendix C.2)."""

    body: str | None
    """Local Hugging Face folder of the causal LM whose trunk the model starts from; null takes the SFT baseline. It must
    share the policy's tokenizer. The paper has one reward model of 6B for policies of every size."""
    margin: Margin
    """How far apart the scores of a pair should be: none, as InstructGPT's eq. 1; rank asks for more the more places lie
    between the two (0 between neighbours, then 1/3, 2/3 and 1), as Llama 2 does by rating."""
    adam: AdamConfig
    """Optimizer; its learning rate is the peak, reached at once: there is no warm-up."""
    epochs: int = Field(gt=0)
    """Passes over the comparisons; InstructGPT takes exactly one, more overfits fast."""
    batch_size: int = Field(gt=0)
    """Batch elements per optimizer step; see batch_element."""
    batch_element: Literal["prompt", "pair"]
    """prompt keeps all pairs of a prompt in one element, one forward pass per completion; pair shuffles single
    pairs over the whole data, the variant that InstructGPT found to overfit."""
    tie_normaliser: Literal["all_pairs", "surviving_pairs"]
    """Divide a prompt's loss by K(K-1)/2, as the formula is printed, or by the pairs left after ties are
    dropped."""
    normalisation: Literal["demonstrations", "completions"]
    """Where the scores' zero and unit lie after training: a shift so that demonstrations average 0 (InstructGPT); or
    a gain and a shift so that completions of the comparisons average 0 with variance 1 (2019 code)."""
    final_lr_fraction: float = Field(ge=0, le=1)
    """The cosine ends at this fraction of the peak learning rate."""
    trained_on: Literal["all", "first_half", "second_half"]
    """Which of the training comparisons are used; the halves are drawn by prompt and are disjoint."""
    prompt_tokens: int = Field(gt=0)
    """Longest prompt."""
    response_tokens: int = Field(gt=0)
    """Longest response, EOS included."""
    adapter: AdapterConfig | None
    """Thin matrices that are trained instead of the weights; null trains every weight."""
    seed: int
    """Initial scalar head and order of the comparisons."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """The files of ``body`` stand in for its path."""
        files = {} if self.body is None else {"body": folder_fields(self.body)}
        return super().fingerprint_fields() | files
