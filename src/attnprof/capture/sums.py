"""Gradients that autograd adds up because several ops read a tensor.

It adds them into the storage of the first. Under a dispatch mode it makes a new tensor instead, and lets the
first go right after. Memory is told as it is without us: the storage of the first ends as the sum begins.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import BackwardCFunction

_task = torch._C._current_graph_task_id
#: The op that makes one.
SUM = "aten.add.Tensor"


class Sums:
    """Knows such a sum from one in a node's own formula, which adds what the node has made itself.

    An entry of the log has the block and whether it ended in its lowest ``bits``; above them, the time.
    """

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._node, self._since = -1, 0
        self.first, self._made = -1, -1  # of the latest sum: the block of its first gradient, and its own

    def in_node(self, node: Any, blocks: int) -> None:
        """This node is running; so many blocks there were when it began. One of the user's adds what it likes."""
        number = node._sequence_nr()
        if number != self._node:
            self._node, self._since = number, 0 if isinstance(node, BackwardCFunction) else blocks

    def note(self, given: set[int], made: int, sizes: Sequence[int]) -> None:
        """Two tensors were added up into this block; the first has one of these."""
        for first in given:
            whole = sizes[first] == sizes[made]  # and no expanded tensor, which cannot hold the sum
            if whole and first < self._since and _task() >= 0 and not torch.is_grad_enabled():
                self.first, self._made = first, made

    def tell(self, log: array[int], end: int) -> None:
        """Write down the end of ``first``: before the sum's beginning, if nothing was written in between."""
        last, bits = len(log) - 1, self._bits
        begin = log[last]
        if begin & (1 << bits) - 1 == self._made << 1 and end >> bits == (begin >> bits) + 1:
            log[last] = begin >> bits << bits | self.first << 1 | 1
            end = begin
        log.append(end)
