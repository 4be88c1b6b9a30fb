"""The knobs of collecting comparisons."""

from typing import Any, Literal

from pydantic import Field, model_validator

from tasks.comparisons.labelers.config import ChatLabelerConfig, FunctionConfig, PeopleConfig, TeacherConfig
from tasks.engine.config import Config

LabelerName = Literal["simulated", "people", "chat", "function", "reward_model"]


class SamplingConfig(Config):
    """Several responses per prompt (InstructGPT section 3.5)."""

    prompts_from: Literal["comparison_prompts", "rl_prompts"]
    """Role of the prompts that are compared; only the embedded world has comparison_prompts."""
    completions_min: int = Field(ge=2)
    """Fewest responses drawn per prompt."""
    completions_max: int = Field(ge=2)
    """Most responses drawn per prompt; K is uniform between the two."""
    selection: Literal["random", "adversarial"]
    """Which responses are ranked from the second round on. random: as drawn; adversarial: of ``selected_from`` responses to each
    training prompt, those on which the last round's reward model and its independent one disagree most."""
    selected_from: int = Field(ge=3)
    """Responses drawn per training prompt; read when selection is adversarial."""
    temperature: float = Field(gt=0)
    """Sampling temperature of the policy that is compared."""
    prompt_tokens: int = Field(gt=0)
    """Longest prompt."""
    response_tokens: int = Field(gt=0)
    """Longest response, EOS included."""
    max_prompts: int = Field(gt=0)
    """Training prompts that are compared; the first so many are used."""
    max_valid_prompts: int = Field(gt=0)
    """Validation prompts that are compared."""
    seed: int
    """Number of responses, sampling, who labels what, labelers' noise."""

    @model_validator(mode="after")
    def _range(self) -> "SamplingConfig":
        if self.completions_min > self.completions_max:
            raise ValueError(
                f"completions_min ({self.completions_min}) must not exceed completions_max ({self.completions_max})"
            )
        if self.selection == "adversarial" and self.selected_from <= self.completions_max:
            raise ValueError(
                f"selection is adversarial, and selected_from ({self.selected_from}) must exceed completions_max "
                f"({self.completions_max}): otherwise nothing is selected"
            )
        return self

    def fingerprint_fields(self) -> dict[str, Any]:
        """Of how many responses some are selected counts only where some are."""
        fields = super().fingerprint_fields()
        if self.selection == "random":
            del fields["selected_from"]
        return fields

    @property
    def drawn(self) -> "SamplingConfig":
        """What is drawn for training prompts before any of it is selected."""
        if self.selection == "random":
            return self
        return self.model_copy(update={"completions_min": self.selected_from, "completions_max": self.selected_from})


class ComparisonsConfig(SamplingConfig):
    """Several responses per prompt, ranked by labelers (InstructGPT sections 3.4 and 3.5)."""

    source: Literal["sample_and_label", "given"]
    """sample_and_label draws from the SFT policy and asks the labelers; given takes the rankings in the data."""
    labelers: list[LabelerName] = Field(min_length=1)
    """Who ranks. Of several, each gets an equal part of the prompts. simulated are the embedded world's panels; people use the
    labelling page; chat is a chat model with principles; function is a rule of yours; reward_model is a teacher."""
    shared_share: float = Field(ge=0, le=1)
    """Share of the prompts that every labeler ranks, to measure how far they agree."""
    people: PeopleConfig
    """What people are asked; read with the labeler people."""
    chat: ChatLabelerConfig
    """Which chat model, and by which principles; read with the labeler chat."""
    function: FunctionConfig
    """Which rule; read with the labeler function."""
    reward_model: TeacherConfig
    """Which teacher; read with the labeler reward_model."""
    confidence: float = Field(gt=0, lt=1)
    """Level of the intervals around agreement."""
    bootstrap_samples: int = Field(gt=0)
    """Resamples of the shared prompts for these intervals."""
    agreement_prompts: int = Field(ge=0)
    """Validation prompts that every simulated labeler ranks, to measure how far they agree."""
    held_out_labeler_share: float = Field(ge=0, lt=1)
    """Source given: share of the labelers whose rankings are never trained on (the sandbox has a held-out panel
    instead)."""

    def in_round(self, number: int) -> "ComparisonsConfig":
        """In the first round no policy has found yet what its reward model overrates, so nothing is selected."""
        return self.model_copy(update={"selection": "random"}) if number == 1 else self

    @property
    def samples(self) -> bool:
        """Whether responses are drawn and ranked."""
        return self.source == "sample_and_label"

    @property
    def sampled_apart(self) -> bool:
        """Whether the responses are kept apart from their rankings, because those come later or cost something, or others choose
        what is ranked."""
        return self.samples and (self.labelers != ["simulated"] or self.selection == "adversarial")

    def fingerprint_fields(self) -> dict[str, Any]:
        """A labeler who is not asked does not count; of one who is, what its answers depend on."""
        fields = super().fingerprint_fields()
        for name in ("people", "chat", "function", "reward_model"):
            fields.pop(name)
            if self.samples and name in self.labelers:
                fields[name] = getattr(self, name).fingerprint_fields()
        return fields

    @model_validator(mode="after")
    def _agreement_prompts_are_validation_prompts(self) -> "ComparisonsConfig":
        if self.agreement_prompts > self.max_valid_prompts:
            raise ValueError(
                f"agreement_prompts ({self.agreement_prompts}) must not exceed "
                f"max_valid_prompts ({self.max_valid_prompts})"
            )
        return self

    @model_validator(mode="after")
    def _labelers_can_be_asked(self) -> "ComparisonsConfig":
        if len(set(self.labelers)) < len(self.labelers):
            raise ValueError(f"labelers is {self.labelers}, expected each labeler once")
        if not self.samples:
            return self
        required = {
            "chat": ("chat.model", self.chat.model),
            "function": ("function.name", self.function.name),
            "reward_model": ("reward_model.folder", self.reward_model.folder),
        }
        for name, (knob, value) in required.items():
            if name in self.labelers and not value:
                raise ValueError(f"labelers contains {name} and {knob} is not given; set comparisons.{knob}")
        if "chat" in self.labelers and self.completions_max > LETTERS:
            raise ValueError(
                f"completions_max is {self.completions_max}, and a chat model is shown responses by letter, so {LETTERS} at most"
            )
        return self


LETTERS = 26
