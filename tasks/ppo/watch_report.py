"""What the watch over a PPO run leaves beside the policy; read by pages and terminal without what trains."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Intervention(BaseModel):
    """One time that the brake held."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iteration: int
    action: Literal["warn", "beta", "rollback", "stop"]
    rule: str
    """Which sign it was: worth, entropy_collapse or length_drift."""
    found: float
    limit: float
    reason: str
    beta: float
    """In force from the next iteration on."""
    best_iteration: int
    """The last at which the worth was as good as the highest; what rollback returns to and stop ships."""

    @property
    def told(self) -> str:
        """Why the brake held, and what it did."""
        done = {
            "warn": "nothing was done",
            "beta": f"beta is {self.beta:g} from here",
            "rollback": f"back to the weights of iteration {self.best_iteration}, and beta is {self.beta:g} from here",
            "stop": f"the run ends with the weights of iteration {self.best_iteration}",
        }
        return f"{self.reason}; {done[self.action]}"


class SentinelWarning(BaseModel):
    """One rule of the sentinel that fired."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    first_iteration: int
    last_iteration: int
    """The last one at which the rule held."""
    found: float
    """At the first iteration."""
    limit: float
    reason: str


class WatchReport(BaseModel):
    """What the watch leaves beside the policy, as ``sentinel.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judges: list[str]
    """Held-out judges that scored the rollouts."""
    rules: list[str]
    """Rules that could have fired."""
    warnings: list[SentinelWarning]
    iterations: int
    planned_iterations: int
    stopped_early: bool
    selection: str
    """The judge that chose the weights; last for none."""
    selected_iteration: int
    """Whose averaged weights the policy holds, or at the end of whose window the judge liked it best."""
    interventions: list[Intervention] = []
    """Of the brake."""
