"""Reading prompts and then one token at a time, against the Hugging Face model with eager attention on whole sequences."""

import copy
import random

import pytest
import torch
from torch import Tensor, nn

from tasks.language.attention import decoding_attention
from tasks.language.decoding import PackedReader, PaddedReader, columns_first
from tasks.language.families import trunk_of
from tests.unit.families import PACKED, PADDED, build
from tests.unit.sampling import generate
from tests.unit.tiny import VOCABULARY, llama

DRAWS = random.Random(9)
PROMPTS = [[DRAWS.randrange(3, VOCABULARY) for _ in range(length)] for length in (1, 4, 7, 7, 2)]
NEXT = [[DRAWS.randrange(3, VOCABULARY) for _ in range(6)] for _ in PROMPTS]
EQUAL_LENGTHS = [prompt[:1] * 3 for prompt in PROMPTS]
REPEATED = [PROMPTS[number] for number in (1, 2, 1, 4, 2)]


@pytest.mark.parametrize("prompts", [PROMPTS, EQUAL_LENGTHS, REPEATED], ids=["mixed", "equal", "repeated"])
@pytest.mark.parametrize("family", [*PACKED, *PADDED])
@torch.no_grad()
def test_states_equal_those_of_whole_sequences(family: str, prompts: list[list[int]]) -> None:
    model = build(family)
    oracle = copy.deepcopy(trunk_of(model))
    oracle.set_attn_implementation("eager")
    expected = [oracle(torch.tensor([p + n])).last_hidden_state[0] for p, n in zip(prompts, NEXT, strict=True)]
    reader = (PackedReader if family in PACKED else PaddedReader)(trunk_of(model), prompts, 6)
    running = list(range(len(prompts)))
    states = reader.read_prompts()
    for step in range(6):
        for place, row in enumerate(running):
            torch.testing.assert_close(states[place], expected[row][len(prompts[row]) - 1 + step], atol=1e-5, rtol=0)
        if step in (2, 4):  # two rows end, then another
            kept = [0, 2, 3] if step == 2 else [1, 2]
            running = [running[place] for place in kept]
            reader.keep(torch.tensor(kept))
        states = reader.read(torch.tensor([NEXT[row][step] for row in running]))


@torch.no_grad()
def test_a_prompt_of_several_rows_is_read_once() -> None:
    trunk = trunk_of(llama())
    tokens: list[int] = []
    trunk.layers[0].mlp.register_forward_hook(lambda _module, inputs, _output: tokens.append(inputs[0].shape[1]))
    reader = PackedReader(trunk, REPEATED, 6)
    states = reader.read_prompts()
    assert tokens == [len(PROMPTS[1]) + len(PROMPTS[2]) + len(PROMPTS[4])]
    assert states.shape[0] == len(REPEATED) and torch.equal(states[0], states[2])


def test_weights_lie_by_columns_inside_and_return_untouched() -> None:
    model = llama()  # its output head is its embedding
    before = {name: (param.data_ptr(), param.stride(), param.clone()) for name, param in model.named_parameters()}
    inside = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(KeyError), columns_first(model):
        assert inside.stride() == (1, inside.shape[0])
        assert all(torch.equal(param, before[name][2]) for name, param in model.named_parameters())
        assert model.lm_head.weight is model.model.embed_tokens.weight
        raise KeyError
    for name, param in model.named_parameters():
        assert (param.data_ptr(), param.stride()) == before[name][:2], name


def test_training_goes_on_after_sampling() -> None:
    """Gradients and optimizer see the very tensors they saw before."""
    model, untouched = build("llama"), build("llama")
    optimizers = [torch.optim.AdamW(m.parameters(), lr=0.1, fused=True) for m in (model, untouched)]
    for sampled in (False, True):
        if sampled:
            draws = torch.Generator().manual_seed(0)
            generate(
                model, PROMPTS, max_new_tokens=4, temperature=1.0, generator=draws, eos_id=2, pad_id=0, batch_size=3
            )
        for network, optimizer in zip((model, untouched), optimizers, strict=True):
            network(torch.tensor([PROMPTS[2]])).logits.square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    for one, other in zip(model.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("query_dtype", [torch.bfloat16, torch.float32], ids=["half", "turned in full"])
def test_half_precision_attends_as_exactly_as_its_operands_allow(
    key_heads: int, window: int | None, query_dtype: torch.dtype
) -> None:
    """Against double precision of the same operands, at products so large that rounding them moves weights."""
    draws = torch.Generator().manual_seed(3)
    query = torch.randn(6, 4, 1, 16, generator=draws).mul(8).bfloat16().to(query_dtype)
    key, value = (torch.randn(6, key_heads, 9, 16, generator=draws).bfloat16()[:, :, :7] for _ in range(2))
    hidden = torch.zeros(6, 1, 1, 9)
    hidden[1, ..., :2], hidden[4, ..., :6] = -torch.inf, -torch.inf
    keys, values = (part.double().repeat_interleave(4 // key_heads, dim=1) for part in (key, value))
    products = query.double() @ keys.transpose(2, 3) * 0.3 + hidden[..., :7].double()
    if window is not None:
        products[..., : 7 - window] = -torch.inf
    expected = (products.softmax(-1) @ values).transpose(1, 2)

    def found(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        given = {"hidden": hidden, "scaling": 0.3, "sliding_window": window}
        return decoding_attention(nn.Module(), query, key, value, None, **given)[0]

    attended = found(query, key, value)
    assert attended.dtype == torch.bfloat16
    torch.testing.assert_close(attended.double(), expected, atol=2e-2, rtol=2**-7)
    torch.testing.assert_close(found(query.float(), key.float(), value.float()).double(), expected, atol=1e-5, rtol=0)
