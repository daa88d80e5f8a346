"""Keys and values of many rows in buffers with room: a new token is written in place, and rows come and go.

transformers' own cache copies everything at every token (a concatenation) and whenever a row leaves; in a large batch
on a CPU that takes longer than the model's arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Cache

ROOM = 32
"""Free columns of a new buffer: so many tokens are written before everything is copied once."""


@dataclass
class Window:
    """Where the rows lie in every layer's buffers: the first `rows` rows, columns `begin` to `end`.

    A row is aligned to the right: its last token stands in column end - 1, and what lies before its first one is
    finite and masked out.
    """

    rows: int = 0
    begin: int = 0
    end: int = 0

    @property
    def width(self) -> int:
        """Columns in use."""
        return self.end - self.begin


@cache
def _layer_class() -> type[Any]:
    from transformers.cache_utils import DynamicLayer

    class BufferedLayer(DynamicLayer):
        """`keys` and `values` (rows, heads, columns, size) of one layer, and the window that all layers share."""

        def __init__(self, window: Window) -> None:
            super().__init__()
            self.window, self.is_initialized = window, True

        def update(self, key_states: "Tensor", value_states: "Tensor", *_: Any, **__: Any) -> Any:
            window = self.window
            end = window.end + key_states.shape[-2]
            self.keys[: window.rows, :, window.end : end] = key_states
            self.values[: window.rows, :, window.end : end] = value_states
            used = (slice(window.rows), slice(None), slice(window.begin, end))
            return self.keys[used], self.values[used]

        def get_seq_length(self) -> int:
            return self.window.width

    return BufferedLayer


class BufferedCache:
    """The cache of a model all of whose layers attend to everything before them."""

    def __init__(self, layers: int) -> None:
        from transformers import Cache

        self.window = Window()
        self.cache = Cache(layers=[_layer_class()(self.window) for _ in range(layers)])
        """What the model takes as `past_key_values`; after each of its calls `advance` is due."""

    def join(self, cache: "Cache", places: "Tensor", columns: "Tensor") -> None:
        """Append rows: new row i is row places[i] of `cache`, of which it takes columns[i] (width), aligned right."""
        count, width = columns.shape
        if not self.window.rows:
            self.window.begin = self.window.end
        self._make_room(self.window.rows + count, width, cache)
        window = self.window
        target = (slice(window.rows, window.rows + count), slice(None), slice(window.end - width, window.end))
        for own, read in zip(self.cache.layers, cache.layers, strict=True):
            own.keys[target] = read.keys[places[:, None], :, columns].transpose(1, 2)
            own.values[target] = read.values[places[:, None], :, columns].transpose(1, 2)
        window.rows += count
        window.begin = min(window.begin, window.end - width)

    def select(self, order: Sequence[int], width: int) -> None:
        """Keep len(order) rows, row i being what was row order[i]; the longest of them has `width` tokens."""
        import torch

        window = self.window
        moves = [(to, source) for to, source in enumerate(order) if to != source]
        if moves:
            to, source = torch.tensor(moves, device=self.cache.layers[0].keys.device).T
            columns = slice(window.begin, window.end)
            for layer in self.cache.layers:
                layer.keys[to, :, columns] = layer.keys[source, :, columns]
                layer.values[to, :, columns] = layer.values[source, :, columns]
        window.rows, window.begin = len(order), window.end - width

    def reserve(self) -> None:
        """Make sure that one more token can be written to every row."""
        self._make_room(self.window.rows, self.window.width, self.cache)

    def advance(self) -> None:
        """Take the token that the model has just written into the window."""
        self.window.end += 1

    def _make_room(self, rows: int, width: int, like: "Cache") -> None:
        """Buffers for `rows` rows with `width` columns before the end and one behind it, shaped as those of `like`."""
        window, keys = self.window, self.cache.layers[0].keys
        if keys is not None and len(keys) >= rows and width <= window.end < keys.shape[2]:
            return
        end = max(window.width, width)
        rows = max(rows, 0 if keys is None else len(keys))
        old = (slice(window.rows), slice(None), slice(window.begin, window.end))
        new = (slice(window.rows), slice(None), slice(end - window.width, end))
        for layer, model in zip(self.cache.layers, like.layers, strict=True):
            for name in ("keys", "values"):
                states = getattr(model, name)
                # Zeros: a masked column has the weight 0, and 0 times whatever lies in fresh memory may be no number.
                buffer = states.new_zeros(rows, states.shape[1], end + ROOM, states.shape[3])
                if window.rows:
                    buffer[new] = getattr(layer, name)[old]
                setattr(layer, name, buffer)
        window.begin, window.end = end - window.width, end
