"""Evaluation sheets made by hand, small enough to check every number of a comparison on paper."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from flows.evaluation_config import EvaluationConfig
from tasks.results.sheet import (
    BestOfPoint,
    DocumentLoss,
    PolicySheet,
    PromptSamples,
    Response,
    TaskResult,
    Toxicity,
    Truthfulness,
)
from tests.shipped import shipped


def evaluation_config(name: str = "sandbox", **changes: Any) -> EvaluationConfig:
    """The real conf/evaluation/<name>.yaml, with a few values changed."""
    group = OmegaConf.create(shipped("evaluation", name))
    # These refer to other groups of the whole configuration.
    group.merge_with({"seed": 3, "prompt_tokens": 24, "response_tokens": 12, "prompt_layout": "{prompt}"})
    values = OmegaConf.to_container(group, resolve=True)
    assert isinstance(values, dict)
    return EvaluationConfig.model_validate({**values, **changes})


def response(gold: float | None, proxy: float, *, text: str = "fine .", finished: bool = True) -> Response:
    scores = {"reward_model": proxy} if gold is None else {"gold": gold, "reward_model": proxy}
    return Response(text=text, finished=finished, tokens=4, scores=scores)


def sheet(
    name: str,
    sets: dict[str, Sequence[Response]],
    *,
    benchmarks: dict[str, list[int]] | None = None,
    nll: list[float] | None = None,
    toxic: list[float] | None = None,
    scorer: str = "sandbox_words",
    truth: dict[str, Truthfulness] | None = None,
    curve: list[BestOfPoint] | None = None,
    held_out: Sequence[int] = (),
) -> PolicySheet:
    count = max(map(len, sets.values()))
    return PolicySheet(
        name=name,
        temperature=1.0,
        kl=[1.0, 2.0, 1.5],
        benchmarks={
            task: TaskResult(item_ids=[f"{task}-{i}" for i in range(len(correct))], correct=correct)
            for task, correct in (benchmarks or {}).items()
        },
        documents=DocumentLoss(nll=nll, tokens=[10] * len(nll)) if nll else None,
        toxicity=Toxicity(scorer=scorer, layout="basic", scores=toxic) if toxic else None,
        truthfulness=truth or {},
        best_of_curve=curve or [],
        samples=[
            PromptSamples(
                prompt_id=f"p{row}",
                kind="chat",
                held_out=row in held_out,
                prompt=f"q : number {row} a :",
                responses={decoding: list(rows)[row] for decoding, rows in sets.items() if row < len(rows)},
            )
            for row in range(count)
        ],
    )


def four(gold: Sequence[float], proxy: Sequence[float] | None = None) -> list[Response]:
    """One response a prompt with these gold scores; the reward model gives the same unless told otherwise."""
    return [response(g, p) for g, p in zip(gold, proxy or gold, strict=True)]


def trio() -> dict[str, PolicySheet]:
    """base, sft and ppo_ptx on four prompts, with numbers chosen for hand calculation."""
    return {
        "base": sheet(
            "base",
            {"sampled": four([0, 0, 0, 2]), "greedy": four([0, 0, 0, 0])},
            benchmarks={"sums": [1, 1, 1, 1], "copy": [1, 1, 0, 0, 1]},
            nll=[10.0, 10.0],
            toxic=[1.0, 1.0, 0.0, 1.0],
            held_out=[3],
        ),
        "sft": sheet(
            "sft",
            {
                "sampled": four([1, 2, 1, 1]),
                "greedy": four([2, 2, 1, 1]),
                "opponent": four([1, 1, 1, 1]),
                "best_of_4": four([2, 1, 1]),
            },
            benchmarks={"sums": [1, 1, 1, 0], "copy": [1, 1, 0, 0, 0]},
            nll=[12.0, 12.0],
            toxic=[0.0, 1.0, 0.0, 0.0],
            curve=[
                BestOfPoint(n=1, kl=0.0, scores={"gold": 1.0, "reward_model": 1.0}),
                BestOfPoint(n=4, kl=0.6, scores={"gold": 1.3, "reward_model": 1.5}),
            ],
            held_out=[3],
        ),
        "ppo_ptx": sheet(
            "ppo_ptx",
            {"sampled": four([2, 2, 2, 0], [3, 3, 3, 3]), "greedy": four([2, 3, 2, 1], [3, 3, 3, 3])},
            benchmarks={"sums": [1, 1, 0, 0], "copy": [1, 1, 1, 0, 1]},
            nll=[11.0, 12.0],
            toxic=[0.0, 1.0, 0.0, 0.0],
            truth={"sampled": Truthfulness(true=[1, 1, 0, 1], informative=[1, 0, 1, 1], held_out=[0, 0, 1, 1])},
            held_out=[3],
        ),
    }
