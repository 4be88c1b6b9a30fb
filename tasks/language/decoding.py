"""How sampling reads: prompts first, then one token per row at a time, with keys and values in preallocated memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

from tasks.language.attention import DECODING, attending
from tasks.language.families import packed_states


class PackedReader:
    """Reads prompts one behind another, without padding and each once; every new token then sees its own row's cache.

    Row b's prompt ends in column W - 1 of the cache, W being the longest prompt, so that new tokens share a column.
    """

    compacts = True
    """Rows can be taken out."""

    def __init__(self, trunk: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
        self.trunk = trunk
        device = trunk.device
        numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        self.lengths = [len(prompt) for prompt in numbers]  # of the U different prompts, which have N tokens
        self.ids = torch.tensor([token for prompt in numbers for token in prompt], device=device)
        self.token_positions = torch.cat([torch.arange(length, device=device) for length in self.lengths])
        ends = torch.tensor(self.lengths, device=device).cumsum(0)
        self.last = ends - 1  # of each prompt, among the N
        self.of_row = torch.tensor([numbers[tuple(prompt)] for prompt in prompts], device=device)  # (B,) which of the U
        lengths, width = torch.tensor(self.lengths, device=device)[self.of_row], max(self.lengths)
        self.positions = lengths - 1  # of the last token each row has read
        columns = torch.arange(width, device=device)
        rows, places = (columns >= (width - lengths)[:, None]).nonzero(as_tuple=True)  # of every row's prompt tokens
        sources = ends[self.of_row][rows] - (width - places)  # the same tokens among the N
        self.hidden: Tensor | None = None
        if min(self.lengths) < width:
            visible = torch.arange(width + max_new_tokens, device=device) >= (width - lengths)[:, None]
            zero = torch.zeros((), device=device)
            self.hidden = torch.where(visible, zero, -torch.inf)[:, None, None]  # (B, 1, 1, T)
        layers = trunk.config.get_text_config().num_hidden_layers
        self.cache = Cache(layers=[self._layer(width + max_new_tokens, rows, places, sources) for _ in range(layers)])

    def _layer(self, *args: Any) -> "RowLayer":
        return RowLayer(*args)

    def read_prompts(self) -> Tensor:  # (B, D)
        """Final hidden state of each prompt's last token."""
        states = packed_states(self.trunk, self.ids, self.token_positions, self.lengths, self.last, self.cache)
        return states[self.of_row]

    def read(self, tokens: Tensor) -> Tensor:  # (B,) -> (B, D)
        """Final hidden states after one more token in every row."""
        self.positions = self.positions + 1
        return self._forward(tokens, self.hidden)

    def _forward(self, tokens: Tensor, hidden: Tensor | None, **how: Any) -> Tensor:  # (B,) -> (B, D)
        with attending(self.trunk, DECODING):
            output = self.trunk(
                input_ids=tokens[:, None],
                position_ids=self.positions[:, None],
                past_key_values=self.cache,
                use_cache=True,
                hidden=hidden,
                **how,
            )
        return output.last_hidden_state[:, -1]  # type: ignore[no-any-return]

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows."""
        self.positions = self.positions[rows]
        self.hidden = None if self.hidden is None else self.hidden[rows]
        self.cache.batch_select_indices(rows)


class PaddedReader:
    """Reads prompts padded on the left, with a mask: for families that are not known to read packed rows."""

    def __init__(self, trunk: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
        self.trunk = trunk
        device = trunk.device
        self.width = self.end = max(map(len, prompts))
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        fill = prompts[0][0]  # any id of the vocabulary
        self.ids = torch.tensor([[fill] * (self.width - len(p)) + list(p) for p in prompts], device=device)
        self.positions = lengths - 1  # of the last token each row has read
        columns = torch.arange(self.width + max_new_tokens, device=device)
        self.mask = (columns >= (self.width - lengths)[:, None]).long()
        self.cache = DynamicCache(config=trunk.config)
        # States of linear attention cannot be selected by row: all rows stay to the end.
        self.compacts = not any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in self.cache.layers)

    def read_prompts(self) -> Tensor:  # (B, D)
        """Final hidden state of each prompt's last token."""
        positions = (self.mask[:, : self.width].cumsum(dim=1) - 1).clamp(min=0)
        return self._forward(self.ids, positions)

    def read(self, tokens: Tensor) -> Tensor:  # (B,) -> (B, D)
        """Final hidden states after one more token in every row."""
        self.positions, self.end = self.positions + 1, self.end + 1
        return self._forward(tokens[:, None], self.positions[:, None])

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows."""
        self.positions, self.mask = self.positions[rows], self.mask[rows]
        self.cache.batch_select_indices(rows)

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        output = self.trunk(
            input_ids=ids,
            attention_mask=self.mask[:, : self.end],
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.last_hidden_state[:, -1]  # type: ignore[no-any-return]


class RowLayer(DynamicLayer):  # type: ignore[misc]  # the library is not typed
    """Keys and values of one layer, written in place instead of copied to a longer tensor at every token.

    The first update brings those of all prompts, one behind another, and puts each into its rows; later ones bring one
    column of all rows.
    """

    def __init__(self, capacity: int, rows: Tensor, places: Tensor, sources: Tensor) -> None:
        super().__init__()
        self.capacity, self.rows, self.places, self.sources = capacity, rows, places, sources
        self.length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Prompts (1, G, N, d) come back as they are; after (B, G, 1, d) more, (B, G, T, d) of all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.stores = [self._new_store(states) for states in (key_states, value_states)]
            self.length = int(self.places.max()) + 1
            self.keys, self.values = (store[:, :, : self.length] for store in self.stores)
            return key_states, value_states
        for store, states in zip(self.stores, (key_states, value_states), strict=True):
            store[:, :, self.length] = states[:, :, 0]
        self.length += 1
        self.keys, self.values = (store[:, :, : self.length] for store in self.stores)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        for number, store in enumerate(self.stores):
            kept = store.new_empty(len(indices), *store.shape[1:])
            kept[:, :, : self.length] = store[indices, :, : self.length]
            self.stores[number] = kept
        self.keys, self.values = (store[:, :, : self.length] for store in self.stores)

    def _new_store(self, states: Tensor) -> Tensor:  # (1, G, N, d) -> (B, G, capacity, d)
        rows = int(self.rows.max()) + 1
        kind, dtype = states.device.type, states.dtype
        if torch.is_autocast_enabled(kind):  # rotated keys are fp32, and every product would round all of them anew
            dtype = torch.get_autocast_dtype(kind)
        shape = (rows, states.shape[1], self.capacity, states.shape[3])
        store = torch.zeros(shape, dtype=dtype, device=states.device)  # padding is read, if for nothing
        store[self.rows, :, self.places] = states[0].transpose(0, 1).to(dtype)[self.sources]
        return store


def _is_dense(layer: nn.Linear) -> bool:
    return layer.weight.is_cpu and layer.weight.is_floating_point()


@contextmanager
def columns_first(model: nn.Module) -> Iterator[None]:
    """Inside this context the weights of linear layers lie column by column in memory; values are the same.

    On CPU, products of a few rows with a weight matrix are up to twice as fast that way. Costs one copy of the weights.
    """
    weights = {id(m.weight): m.weight for m in model.modules() if isinstance(m, nn.Linear) and _is_dense(m)}
    usual = [(weight, weight.data) for weight in weights.values()]
    for weight, data in usual:
        weight.data = data.t().contiguous().t()
    try:
        yield
    finally:
        for weight, data in usual:
            weight.data = data
