"""Models for tests of generation: they remember what each call was given, and what they generate is known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from attnprof.capture.generation import Generation, generate

B, T, V = 2, 5, 11
IDS = torch.arange(B * T).view(B, T) % V


class Labels:
    """A profile that only notes the names of steps."""

    def __init__(self) -> None:
        self.found: list[str | None] = []

    def __enter__(self) -> None: ...
    def __exit__(self, *error: Any) -> None: ...

    def step(self, label: str | None = None) -> None:
        self.found.append(label)


class Given(nn.Module):
    """Remembers what each call was given; the next token of a row is its last plus one."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []
        self.embedding = nn.Embedding(V, V)
        self.embedding.weight.data = torch.eye(V).roll(1, 1)

    def logits(self, ids: Tensor) -> Tensor:
        return self.embedding(ids)

    def given(self, name: str) -> list[Any]:
        return [call.get(name) for call in self.calls]


class Naive(Given):
    def forward(self, ids: Tensor, **given: Any) -> Tensor:
        self.calls.append({"ids": ids, **given})
        return self.logits(ids)


class Cached(Given):
    """Its cache is the ids themselves."""

    def forward(self, ids: Tensor, cache: Tensor | None = None, **given: Any) -> tuple[Tensor, Tensor]:
        self.calls.append({"ids": ids, "cache": cache, **given})
        return self.logits(ids), ids if cache is None else torch.cat([cache, ids], 1)


def generated(model: nn.Module, *args: Any, tokens: int = 3, **kwargs: Any) -> Generation:
    return generate(Labels(), model, args, kwargs, tokens)


def lengths(model: Given, name: str = "ids") -> list[int]:
    return [value.shape[-1] for value in model.given(name)]


def counting_up(tokens: int) -> Tensor:
    """The ids that the models above make of IDS."""
    return torch.cat([IDS, (IDS[:, -1:] + torch.arange(1, tokens + 1)) % V], 1)
