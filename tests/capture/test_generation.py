"""The greedy loop: what the model is given at each step."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from attnprof.capture.generation import generate
from capture.decoders import IDS, B, Cached, Given, Labels, Naive, T, counting_up, generated, lengths

# Steps


def test_n_tokens_take_n_calls() -> None:
    labels = Labels()
    model = Cached()
    made = generate(labels, model, (IDS,), {}, 4)
    assert labels.found == ["prefill", "decode 1", "decode 2", "decode 3"]
    assert lengths(model) == [T, 1, 1, 1]
    assert [None if c is None else c.shape[1] for c in model.given("cache")] == [None, T, T + 1, T + 2]
    assert torch.equal(made.ids, counting_up(4))
    assert made.cached
    assert made.notes == ()


def test_one_token_is_a_prefill() -> None:
    labels = Labels()
    made = generate(labels, Cached(), (IDS,), {}, 1)
    assert labels.found == ["prefill"]
    assert torch.equal(made.ids, counting_up(1))


def test_without_a_cache_every_step_runs_the_whole_sequence() -> None:
    model = Naive()
    made = generated(model, IDS)
    assert lengths(model) == [T, T + 1, T + 2]
    assert torch.equal(made.ids, counting_up(3))
    assert not made.cached
    assert made.notes == ("Naive returned no cache: every decode step ran the whole sequence so far.",)


Named = namedtuple("Named", "logits cache")


@dataclass
class Output:
    logits: Tensor
    cache: Tensor


@pytest.mark.parametrize("form", [Named, Output, lambda logits, cache: {"logits": logits, "cache": cache}])
def test_outputs_with_names(form: Any) -> None:
    class Model(Cached):
        def forward(self, ids: Tensor, cache: Tensor | None = None, **given: Any) -> Any:
            return form(*super().forward(ids, cache, **given))

    model = Model()
    assert torch.equal(generated(model, IDS).ids, counting_up(3))
    assert lengths(model) == [T, 1, 1]


def test_a_cache_that_is_updated_in_place() -> None:
    class Model(Given):
        def forward(self, ids: Tensor, kv_cache: list[Tensor]) -> Tensor:
            self.calls.append({"ids": ids, "cache": len(kv_cache)})
            kv_cache.append(ids)
            return self.logits(ids)

    model, mine = Model(), [torch.zeros(B, 1)]
    assert torch.equal(generated(model, IDS, mine).ids, counting_up(3))
    assert lengths(model) == [T, 1, 1]
    assert model.given("cache") == [1, 2, 3]
    assert len(mine) == 1  # a copy was used


def test_logits_of_the_last_token_are_enough() -> None:
    class Last(Naive):
        def forward(self, ids: Tensor, logits_to_keep: int = 0) -> Tensor:
            self.calls.append({"ids": ids, "logits_to_keep": logits_to_keep})
            return self.logits(ids)[:, -logits_to_keep:]

    model = Last()
    made = generated(model, IDS)
    assert torch.equal(made.ids, counting_up(3))
    assert model.given("logits_to_keep") == [1, 1, 1]
    assert "logits_to_keep=1" in made.notes[1]
    model = Last()
    assert len(generated(model, IDS, logits_to_keep=2).notes) == 1
    assert model.given("logits_to_keep") == [2, 2, 2]


def test_use_cache_is_asked_for_unless_the_caller_said_no() -> None:
    class Asked(Cached):
        def forward(self, ids: Tensor, cache: Tensor | None = None, use_cache: bool = False) -> Any:
            logits, cache = super().forward(ids, cache, use_cache=use_cache)
            return (logits, cache) if use_cache else logits

    model = Asked()
    assert generated(model, IDS).cached
    model = Asked()
    made = generated(model, IDS, use_cache=False)
    assert not made.cached
    assert made.notes == ("Asked was given use_cache=False: every decode step ran the whole sequence so far.",)
    assert lengths(model) == [T, T + 1, T + 2]


def test_ids_keep_their_dtype() -> None:
    model = Naive()
    generated(model, IDS.int())
    assert {ids.dtype for ids in model.given("ids")} == {torch.int32}


# Arguments that go with the ids


@pytest.mark.parametrize("model", [Naive(), Cached()])
@pytest.mark.parametrize("name", ["attention_mask", "mask"])
def test_masks_grow_by_ones(model: Given, name: str) -> None:
    model.calls.clear()
    mask = torch.ones(B, T, dtype=torch.int64)
    mask[0, 0] = 0
    generated(model, IDS, **{name: mask})
    assert lengths(model, name) == [T, T + 1, T + 2]
    last = model.given(name)[-1]
    assert torch.equal(last[:, :T], mask)
    assert last[:, T:].eq(1).all()
    assert mask.shape == (B, T)


def test_a_padding_mask_marks_what_is_absent() -> None:
    model = Naive()
    generated(model, IDS, key_padding_mask=torch.zeros(B, T, dtype=torch.bool))
    last = model.given("key_padding_mask")[-1]
    assert last.shape == (B, T + 2)
    assert last.dtype == torch.bool
    assert not last.any()


def test_a_mask_for_a_longer_past_grows_too() -> None:
    model = Cached()
    generated(model, IDS, torch.zeros(B, 3), attention_mask=torch.ones(B, T + 3))
    assert lengths(model, "attention_mask") == [T + 3, T + 4, T + 5]


def test_other_masks_stay() -> None:
    model = Naive()
    generated(model, IDS, head_mask=torch.ones(B, T), window_mask=torch.ones(3))
    assert lengths(model, "head_mask") == [T, T, T]
    assert lengths(model, "window_mask") == [3, 3, 3]


@pytest.mark.parametrize(("model", "columns"), [(Naive(), [T, T + 1, T + 2]), (Cached(), [T, 1, 1])])
def test_positions_go_on(model: Given, columns: list[int]) -> None:
    model.calls.clear()
    generated(model, IDS, position_ids=torch.arange(T).expand(B, T), token_type_ids=torch.ones(B, T))
    assert lengths(model, "position_ids") == columns
    assert [p[0, -1].item() for p in model.given("position_ids")] == [T - 1, T, T + 1]
    assert lengths(model, "token_type_ids") == columns
    assert model.given("token_type_ids")[-1].eq(1).all()


@pytest.mark.parametrize(
    ("name", "value", "after"),
    [("start_pos", 0, [0, T, T + 1]), ("input_pos", torch.arange(T), [T - 1, T, T + 1])],
)
def test_a_model_that_keeps_its_own_cache_is_told_where_it_is(name: str, value: Any, after: list[int]) -> None:
    model = Naive()
    assert generated(model, IDS, **{name: value}).cached
    assert lengths(model) == [T, 1, 1]
    assert [v if isinstance(v, int) else v[-1].item() for v in model.given(name)] == after


def test_what_only_the_prompt_has_is_given_once() -> None:
    model = Cached()
    generated(model, IDS, pixel_values=torch.ones(B, 3, 8, 8), conditioning=torch.ones(B, 4), labels=IDS)
    assert [value is not None for value in model.given("pixel_values")] == [True, False, False]
    assert all(value is not None for value in model.given("conditioning"))
    assert all(value is None for value in model.given("labels"))


def test_arguments_keep_their_form() -> None:
    """What was positional stays positional, what was named stays named; the caller's own are not touched."""

    class Form(Naive):
        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            self.calls.append({"args": len(args), "kwargs": list(kwargs)})
            return self.logits(args[0])

    model, kwargs = Form(), {"flag": True, "mask": torch.ones(B, T)}
    generate(Labels(), model, (IDS, 3), kwargs, 2)
    assert model.given("args") == [2, 2]
    assert model.given("kwargs") == [["flag", "mask"]] * 2
    assert kwargs["mask"].shape == (B, T)


def test_the_encoder_runs_once() -> None:
    class Config:
        decoder_start_token_id = 7

    @dataclass
    class Answer:
        logits: Tensor
        encoder_last_hidden_state: Tensor

    class EncoderDecoder(Given):
        config = Config()

        def forward(
            self,
            input_ids: Tensor | None = None,
            attention_mask: Tensor | None = None,
            decoder_input_ids: Tensor | None = None,
            encoder_outputs: tuple[Tensor, ...] | None = None,
        ) -> Answer:
            self.calls.append({"source": input_ids, "mask": attention_mask, "ids": decoder_input_ids})
            encoded = self.logits(input_ids) if encoder_outputs is None else encoder_outputs[0]
            return Answer(self.logits(decoder_input_ids), encoded)

    model = EncoderDecoder()
    made = generated(model, input_ids=IDS, attention_mask=torch.ones(B, T))
    assert [source is not None for source in model.given("source")] == [True, False, False]
    assert lengths(model, "mask") == [T, T, T]  # the encoder's
    assert lengths(model) == [1, 2, 3]
    assert torch.equal(made.ids, (7 + torch.arange(4)).expand(B, 4))
    model = EncoderDecoder()
    made = generated(model, input_ids=IDS, decoder_input_ids=IDS[:, :2])
    assert lengths(model) == [2, 3, 4]
