"""Keys and values of the tokens seen so far, so that a new token costs one token's work."""

from __future__ import annotations

from torch import Tensor

_GROWTH_TOKENS = 256


class KeyValueCache:
    """One pair of buffers [B, T, K, D] for each layer, with room for tokens to come.

    Buffers grow by half, so that appending a token copies nothing most of the time.

    Attributes:
        layers: Keys and values that are filled, one pair of views [B, T, K, D] for each layer.
    """

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []

    @property
    def length(self) -> int:
        """Tokens that are cached in all layers."""
        return self.layers[-1][0].shape[1] if self.layers else 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append a layer's new keys and values.

        Args:
            layer: From 0; a new one must be the next.
            keys: [B, S, K, D].
            values: The same.

        Returns:
            All of them, [B, T, K, D].
        """
        if layer == len(self.layers):
            nothing = (keys[:, :0], values[:, :0])
            self._buffers.append(nothing)
            self.layers.append(nothing)
        before = self.layers[layer][0].shape[1]
        after = before + keys.shape[1]
        if after > self._buffers[layer][0].shape[1]:
            room = max(_GROWTH_TOKENS, before // 2)
            held = self.layers[layer]
            self._buffers[layer] = (_grown(held[0], keys, room), _grown(held[1], values, room))
        for buffer, new in zip(self._buffers[layer], (keys, values), strict=True):
            buffer[:, before:after] = new
        key_buffer, value_buffer = self._buffers[layer]
        self.layers[layer] = (key_buffer[:, :after], value_buffer[:, :after])
        return self.layers[layer]

    def keep(self, rows: Tensor) -> None:
        """Keep some sequences of the batch, for the others have ended.

        Args:
            rows: Their numbers, int64.
        """
        for number, (keys, values) in enumerate(self.layers):
            self.layers[number] = self._buffers[number] = (keys[rows], values[rows])


def _grown(held: Tensor, new: Tensor, room: int) -> Tensor:
    """Copy what is held into a larger buffer."""
    buffer = held.new_empty((held.shape[0], held.shape[1] + new.shape[1] + room, *held.shape[2:]))
    buffer[:, : held.shape[1]] = held
    return buffer
