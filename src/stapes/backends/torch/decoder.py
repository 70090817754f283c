"""The decoder in PyTorch: cells of windows by rows by tokens, from their tokens to the last layer's output.

A call is a block of cells: each window of it has the same number of rows, each row the same number of new tokens. A
cell that holds nothing is computed all the same; what it computes is not read.
Source: openai/whisper model.py at c0d2f62 (TextDecoder).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import gelu

from stapes.backends.torch.arithmetic import attend, scores_of
from stapes.backends.torch.memory import DeviceMemory
from stapes.backends.torch.weights import Weights
from stapes.checkpoint.base import ModelSpec

#: columns of a row's numbers; its tokens follow
START, COUNT, FIRST, END, PLACE, FORBIDDEN, VOTE, NOW = range(8)
#: ranges of ids that a captured step may forbid a row, two columns each; more are forbidden outside of it
N_RANGES = 4
TOKENS = NOW + 2 * N_RANGES


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What a call computes.

    numbers: (windows * rows, TOKENS + tokens) int32 on the device. START: the position of a row's first new token;
    COUNT: how many it has, 0 for a cell without a row; FIRST, END: the positions of its window that it attends to;
    PLACE: its index in the memory's rows; the others are for choosing.
    slots: of the windows: a slice, which is read in place, or indices (windows,) int64.
    n_rows: of a window.   length: positions of rows that are read: at least START + tokens.
    n_positions: positions of windows that are read: at least END.   in_place: whether row i lies at index i.
    attention: (layer, head) pairs whose scores are wanted.
    """

    numbers: Any
    slots: Any
    n_rows: int
    length: int
    n_positions: int
    in_place: bool
    attention: Sequence[tuple[int, int]] = field(default=())


class Decoder:
    """The network of a model over one device's memory."""

    def __init__(self, spec: ModelSpec, weights: Weights, memory: DeviceMemory, dtype: Any) -> None:
        self._spec, self._weights, self._memory, self._dtype = spec, weights, memory, dtype

    def run(self, block: Block) -> tuple[Any, Any]:
        """Run a block; write its keys and values.

        Returns the last layer's output (windows * rows, tokens, d), and float32 attention scores
        (pairs, windows * rows, tokens, n_positions), or None.
        """
        numbers, w, device = block.numbers, self._weights, block.numbers.device
        tokens = numbers[:, TOKENS:].long()
        n_cells, n_tokens = tokens.shape
        last = self._spec.n_text_ctx
        steps = torch.arange(n_tokens, device=device)
        positions = (numbers[:, START : START + 1] + steps).clamp_(max=last - 1)
        written = torch.where(steps < numbers[:, COUNT : COUNT + 1], positions, last).long()
        places = numbers[:, PLACE].long()
        past = torch.arange(block.length, device=device) <= positions[:, None, :, None]
        place = torch.arange(block.n_positions, device=device)
        seen = (place >= numbers[:, FIRST : FIRST + 1]) & (place < numbers[:, END : END + 1])
        seen = seen.view(-1, 1, block.n_rows, 1, block.n_positions).expand(-1, -1, -1, n_tokens, -1)
        masks = self._mask(past), self._mask(seen).flatten(2, 3)
        x = w.embed(tokens, positions)
        scores: list[Any] = []
        for layer in range(self._spec.n_text_layer):
            name = f"decoder.blocks.{layer}"
            qkv = w.linear(w.norm(x, f"{name}.attn_ln"), f"{name}.qkv")
            mixed = self._attend_self(qkv, layer, block, (places, written), masks[0])
            x = x + w.linear(mixed, f"{name}.attn.out")
            queries = w.linear(w.norm(x, f"{name}.cross_attn_ln"), f"{name}.cross_attn.query")
            mixed = self._attend_cross(queries, layer, block, masks[1], scores)
            x = x + w.linear(mixed, f"{name}.cross_attn.out")
            x = x + w.linear(gelu(w.linear(w.norm(x, f"{name}.mlp_ln"), f"{name}.mlp.0")), f"{name}.mlp.2")
        return x, self._in_order(scores, block, n_cells, n_tokens) if block.attention else None

    def _mask(self, seen: Any) -> Any:
        return torch.zeros(seen.shape, dtype=self._dtype, device=seen.device).masked_fill_(~seen, -torch.inf)

    def _attend_self(self, qkv: Any, layer: int, block: Block, where: tuple[Any, Any], mask: Any) -> Any:
        """(cells, tokens, 3 * d) -> (cells, tokens, d).   where: each cell's place, and the positions to write to."""
        (places, written), (n, n_tokens) = where, qkv.shape[:2]
        parts, memory = qkv.view(n, n_tokens, 3, self._spec.n_text_head, -1), self._memory.rows[layer]
        # Numbers, whatever the weights: a later row has these under a mask, which 0 * NaN would get through.
        memory[:, places[:, None], :, written] = torch.nan_to_num(parts[:, :, 1:])
        held = memory[:, :, :, : block.length]
        held = held[:, :n] if block.in_place else held.index_select(1, places)
        mixed = attend(parts[:, :, 0].transpose(1, 2), held[0], held[1], mask)
        return mixed.transpose(1, 2).reshape(n, n_tokens, -1)

    def _attend_cross(self, queries: Any, layer: int, block: Block, mask: Any, scores: list[Any]) -> Any:
        """(cells, tokens, d) -> (cells, tokens, d): the rows of a window are queries over one memory."""
        n, n_tokens, d = queries.shape
        queries = queries.view(n // block.n_rows, block.n_rows * n_tokens, self._spec.n_text_head, -1).transpose(1, 2)
        keys, values = self._memory.windows[layer][:, block.slots, :, : block.n_positions]
        wanted = sorted({head for of_layer, head in block.attention if of_layer == layer})
        if wanted:
            scores.append(scores_of(queries[:, wanted], keys[:, wanted]).float())
        return attend(queries, keys, values, mask).transpose(1, 2).reshape(n, n_tokens, d)

    def _in_order(self, scores: list[Any], block: Block, n_cells: int, n_tokens: int) -> Any:
        """Return the scores of each pair, in the order in which they were asked for."""
        found = sorted(set(block.attention))
        of_layers = [one.transpose(0, 1).reshape(-1, n_cells, n_tokens, block.n_positions) for one in scores]
        return torch.cat(of_layers)[[found.index(pair) for pair in block.attention]]
