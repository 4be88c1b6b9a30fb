"""PPO over its iterations, as a picture: reward, KL, length, and how many responses ended."""

from collections.abc import Mapping, Sequence

from tasks.compare.plots import panels_of, svg_of

CURVES = {
    "objective/score": "score of the\nreward model",
    "objective/kl": "KL, nats\na response",
    "response/length": "length,\ntokens",
    "response/eos_rate": "share that\nended",
}


def over_iterations(history: Sequence[Mapping[str, float]]) -> str | None:
    """One panel a curve; None without an iteration."""
    shown = {name: title for name, title in CURVES.items() if any(name in row for row in history)}
    if not shown:
        return None
    figure, panels = panels_of(len(shown), height=0.5 + 1.3 * len(shown))
    for axes, (name, title) in zip(panels, shown.items(), strict=True):
        rows = [row for row in history if name in row]
        axes.plot([row["step"] for row in rows], [row[name] for row in rows], "-", color="#4a6fa5", linewidth=1.3)
        axes.set_ylabel(title)
        axes.grid(color="#d5dae0", linewidth=0.6)
    panels[-1].set_xlabel("iteration")
    return svg_of(figure)
