"""Sliding windows against walking over every position."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from attnprof.costs.windows import adaptive, meeting, seen

small = st.integers(1, 4)


@given(st.integers(0, 12), st.integers(0, 6), small, small, st.integers(0, 3), small)
@settings(max_examples=200, deadline=None)
def test_seen_positions(n: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
    def is_seen(position: int) -> bool:
        return any(o * stride + u * dilation - padding == position for o in range(outputs) for u in range(kernel))

    assert seen(n, outputs, kernel, stride, padding, dilation) == sum(map(is_seen, range(n)))

    def meets(output: int) -> bool:
        return any(0 <= output * stride + u * dilation - padding < n for u in range(kernel))

    assert meeting(outputs, n, kernel, stride, padding, dilation) == sum(map(meets, range(outputs)))


@given(st.integers(1, 20), st.integers(1, 20))
def test_adaptive_windows_cover_everything_in_order(n: int, m: int) -> None:
    windows = adaptive(n, m)
    assert windows[0][0] == 0
    assert windows[-1][1] == n
    assert all(start < end for start, end in windows)
    assert all(b[0] <= a[1] for a, b in pairwise(windows))
