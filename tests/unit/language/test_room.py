"""Short memory: the same results from smaller pieces, with one line in the log."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from tasks.engine.errors import ModelError
from tasks.language import generation
from tasks.language.generation import Sampled, sample
from tasks.language.room import Room, is_short, nothing, sampling_room
from tasks.language.scorer import score_rows
from tasks.pretrain.train import PretrainLearner
from tests.unit import tiny_models
from tests.unit.ppo import tiny as tiny_ppo
from tests.unit.tiny_models import weights_of


@contextmanager
def memory_for(tokens: int, *models: nn.Module, spared: int = 0) -> Iterator[list[int]]:
    """Inside this context the models run out of memory on more tokens at once; the first ``spared`` passes are let through."""
    seen: list[int] = []

    def refuse(_module: nn.Module, inputs: tuple[object, ...], given: dict[str, object]) -> None:
        ids = given.get("input_ids")
        assert isinstance(ids, torch.Tensor)
        seen.append(ids.numel())
        if ids.numel() > tokens and len(seen) > spared:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hooks = [model.register_forward_pre_hook(refuse, with_kwargs=True) for model in models]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def memory_for_rows(most: int, spared: int) -> Iterator[list[int]]:
    """Inside this context, sampling runs out of memory where more rows are read side by side."""
    seen: list[int] = []
    usual = generation.logits_of

    def refuse(model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
        seen.append(len(states))
        if len(states) > most and len(seen) > spared:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return usual(model, states)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "logits_of", refuse)
        yield seen


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_means_that_memory_is_short(error: Exception, short: bool) -> None:
    assert is_short(error) is short


def test_work_is_undone_and_done_again_in_halves_for_good(caplog: pytest.LogCaptureFixture) -> None:
    room, done, undone = Room(), list[list[int]](), list[int]()

    def run(groups: Sequence[list[int]]) -> int:
        for group in groups:
            if len(group) > 2:
                raise MemoryError
            done.append(group)
        return len(groups)

    def undo() -> None:
        undone.append(len(done))
        done.clear()

    with caplog.at_level(logging.WARNING):
        assert room.fit([[1, 2], [3, 4, 5, 6, 7]], run, undo) == 6
    assert sorted(row for group in done for row in group) == [1, 2, 3, 4, 5, 6, 7]
    assert undone == [1, 3] and len(caplog.records) == 2
    assert "micro-batches are cut into 4 from now on" in caplog.text
    done.clear()
    assert room.fit([[1, 2, 3, 4]], run, undo) == 4 and len(undone) == 2  # without another try


def test_one_row_that_does_not_fit_is_one_sentence() -> None:
    def run(groups: Sequence[list[int]]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ModelError, match=r"out of memory with one row at a time \(CUDA out of memory\)"):
        Room().fit([[1, 2, 3]], run, nothing)


def test_other_errors_are_not_hidden() -> None:
    def run(groups: Sequence[list[int]]) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        Room().fit([[1, 2]], run, nothing)


def test_scoring() -> None:
    model = tiny_ppo.networks().reward_model
    assert model is not None
    prompts, responses = [[3, 4, 5]] * 6, [[6, 1], [7, 8, 1], [9, 1], [10, 1], [11, 12, 13, 1], [6, 7, 1]]
    expected = score_rows(model, prompts, responses, 0, tiny_models.runtime())
    with memory_for(14, model.backbone) as seen:
        assert score_rows(model, prompts, responses, 0, tiny_models.runtime()) == pytest.approx(expected, abs=1e-6)
    assert max(seen) > 14 >= seen[-1]


@pytest.mark.parametrize("spared", [0, 3])
def test_sampling(caplog: pytest.LogCaptureFixture, spared: int) -> None:
    """Out of memory before the first token, and after rows were written; a later call knows what fits."""
    model, room = tiny_models.policy(), sampling_room()
    prompts = [[3, 4, 5], [6, 7], [8, 9, 10, 11], [12], [3, 5], [4, 6, 8], [7, 9]]

    def draw(room: Room | None) -> Sampled:
        draws = torch.Generator().manual_seed(5)
        return sample(
            model,
            prompts,
            max_new_tokens=6,
            temperature=1.0,
            generator=draws,
            eos_id=1,
            pad_id=0,
            batch_size=7,
            with_statistics=True,
            room=room,
        )

    expected = draw(None)
    assert len(set(map(tuple, expected.responses))) > 4
    with caplog.at_level(logging.WARNING), memory_for_rows(2, spared) as seen:
        found = draw(room)
        first = len(seen)
        draw(room)
    assert found.responses == expected.responses
    for table, usual in zip(found.statistics or (), expected.statistics or (), strict=True):
        torch.testing.assert_close(table, usual, atol=1e-5, rtol=1e-5)
    assert max(seen[:first]) == 7 and max(seen[first:]) <= 2, "tried once, known from then on"
    assert "rows sampled side by side are cut into 4 from now on; runtime.generation_batch" in caplog.text


@pytest.mark.parametrize("spared", [0, 1])
def test_ppo_trains_to_the_same_weights(spared: int) -> None:
    """Out of memory in the first pass, and after a pass whose gradients or rows must not count twice."""

    def trained(limit: Callable[[tiny_ppo.PPOLearner], object] | None) -> tiny_ppo.PPOLearner:
        learner = tiny_ppo.learner(runtime_changes={"tokens_per_microbatch": 60, "debug": False})
        if limit is None:
            learner.step()
            return learner
        networks = learner.networks
        assert networks.value_model is not None and networks.reward_model is not None
        update = learner.update
        trunks = (networks.policy.model, networks.value_model.backbone, networks.reward_model.backbone)
        whole = update.__call__

        def short(*arguments: object) -> object:
            with memory_for(40, *trunks, spared=spared) as seen:
                found = whole(*arguments)  # type: ignore[arg-type]
            refused.append(max(seen) > 40)
            return found

        learner.update = short  # type: ignore[assignment]
        learner.step()
        return learner

    refused: list[bool] = []
    plain, cut = trained(None), trained(lambda learner: None)
    assert refused[0]  # later minibatches are cut from the start
    for networks in ("policy", "value_model"):
        before, after = (weights_of(getattr(learner.networks, networks)) for learner in (plain, cut))
        for name in before:
            torch.testing.assert_close(after[name], before[name], atol=2e-6, rtol=1e-5)


def test_pretraining_too() -> None:
    def trained(limit: int) -> dict[str, torch.Tensor]:
        settings = tiny_models.settings("pretrain", steps=1, warmup_steps=0, batch_rows=8, row_tokens=12, valid_every=5)
        from tasks.pretrain.config import PretrainConfig

        rows = torch.randint(3, 14, (40, 12), generator=torch.Generator().manual_seed(0))
        learner = PretrainLearner(
            tiny_models.policy(), rows, PretrainConfig.model_validate(settings), tiny_models.runtime()
        )
        with memory_for(limit, learner.model.model):
            learner.step()
        return weights_of(learner.model)

    plain, cut = trained(1000), trained(30)
    for name in plain:
        torch.testing.assert_close(cut[name], plain[name], atol=2e-6, rtol=1e-5)
