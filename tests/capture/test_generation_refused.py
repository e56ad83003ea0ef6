"""What cannot generate is refused in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.core.errors import AttnprofError
from capture.decoders import IDS, B, Cached, Naive, T, V, generated


class Returns(nn.Module):
    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, ids: Tensor) -> Any:
        return self.output


@dataclass
class Hidden:
    last_hidden_state: Tensor


NEEDED = "generation needs logits [batch, tokens, vocabulary], as the output, its first item or its .logits."


@pytest.mark.parametrize(
    ("model", "args", "tokens", "message"),
    [
        (Naive(), (IDS,), 0, "generating 0 tokens would run nothing: give 1 or more."),
        (Naive(), (IDS,), -3, "generating -3 tokens would run nothing: give 1 or more."),
        (Naive(), (IDS,), 2.5, "generate takes a whole number of tokens, not 2.5."),
        (Naive(), (IDS,), True, "generate takes a whole number of tokens, not True."),
        (
            nn.Linear(4, 4),
            (torch.zeros(2, 4),),
            2,
            "Linear was given no token ids (float32[2,4]): generation needs a prompt, an integer tensor "
            "[batch, tokens].",
        ),
        (
            nn.Linear(4, 4),
            (),
            2,
            "Linear was given no token ids (no arguments): generation needs a prompt, an integer tensor "
            "[batch, tokens].",
        ),
        (Returns(torch.zeros(B, 10)), (IDS,), 2, f"Returns returned float32[2,10]: {NEEDED}"),
        (Returns(torch.zeros(B, 3, V)), (IDS,), 2, f"Returns returned float32[2,3,11]: {NEEDED}"),  # 5 tokens went in
        (Returns(torch.zeros(T, B, V)), (IDS,), 2, f"Returns returned float32[5,2,11]: {NEEDED}"),
        (Returns(Hidden(torch.zeros(B, T, 4))), (IDS,), 2, f"Returns returned Hidden(last_hidden_state): {NEEDED}"),
        (Returns((torch.zeros(B, 4), [])), (IDS,), 2, f"Returns returned (float32[2,4], list): {NEEDED}"),
        (Returns(None), (IDS,), 2, f"Returns returned NoneType: {NEEDED}"),
        (Returns(IDS[..., None]), (IDS,), 2, f"Returns returned int64[2,5,1]: {NEEDED}"),
    ],
)
def test_what_cannot_generate_is_said_in_a_sentence(model: nn.Module, args: Any, tokens: Any, message: str) -> None:
    with pytest.raises(AttnprofError) as raised:
        attnprof.run(model, args, generate=tokens)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"input_ids": torch.zeros(2, 4)}, "input_ids is float32[2,4]: a prompt is integers [batch, tokens]."),
        ({"input_ids": IDS[0]}, "input_ids is int64[5]: a prompt is integers [batch, tokens]."),
        (
            {"input_ids": IDS, "attention_mask": torch.ones(1, 1, T, T)},
            "attention_mask is float32[1,1,5,5]: generation needs a mask [batch, tokens], which can grow.",
        ),
    ],
)
def test_arguments_that_cannot_go_on(kwargs: Any, message: str) -> None:
    with pytest.raises(AttnprofError) as raised:
        attnprof.run(Naive(), (), kwargs, generate=2)
    assert str(raised.value) == message


def test_an_encoder_decoder_without_a_beginning() -> None:
    class Decoder(nn.Module):
        def forward(self, input_ids: Tensor, decoder_input_ids: Tensor | None = None) -> Any:
            raise AssertionError("not called")

    with pytest.raises(AttnprofError, match="Decoder needs decoder_input_ids to begin with"):
        generated(Decoder(), IDS)
    with pytest.raises(AttnprofError, match="Decoder was given no tensor: generation needs the input of its encoder"):
        generated(Decoder())


@pytest.mark.parametrize(
    "other",
    [
        {"backward": True},
        {"optimizer": "sgd"},
        {"loss": lambda output: output[0].sum()},
        {"plan": attnprof.Plan(checkpoint=True)},
    ],
)
def test_no_backward(other: dict[str, Any]) -> None:
    with pytest.raises(AttnprofError, match="generation has no backward"):
        attnprof.run(Naive(), (IDS,), generate=2, **other)


def test_a_cache_that_cannot_be_copied() -> None:
    with pytest.raises(AttnprofError, match="cache cannot be copied, so that yours would stay as it is"):
        generated(Cached(), IDS, torch.ones(B, 1, requires_grad=True) * 2)
