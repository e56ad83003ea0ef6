"""--input: the grammar, where the values go, and a sentence for what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnprof.cli.inputs import InputSpec, TensorSpec, apply, make, parse
from attnprof.cli.target import Target
from attnprof.core.errors import AttnprofError


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("x=float32[2,128,768]", "x", TensorSpec("float32", (2, 128, 768))),
        ("input_ids=int64[2,128]<50257", "input_ids", TensorSpec("int64", (2, 128), below=50257)),
        (" x = bfloat16[ 4 , 8 ] ", "x", TensorSpec("bfloat16", (4, 8))),
        ("x=bf16[4]", "x", TensorSpec("bfloat16", (4,))),
        ("x=half[4]", "x", TensorSpec("float16", (4,))),
        ("x=float32[]", "x", TensorSpec("float32", ())),
        ("x=float32[0,3]", "x", TensorSpec("float32", (0, 3))),
        ("mask=int64[2,128]=1", "mask", TensorSpec("int64", (2, 128), fill=1)),
        ("mask=bool[2]=true", "mask", TensorSpec("bool", (2,), fill=True)),
        ("bias=float32[2]=-0.5", "bias", TensorSpec("float32", (2,), fill=-0.5)),
        ("float32[8]", None, TensorSpec("float32", (8,))),
        ("int64[8]<5", None, TensorSpec("int64", (8,), below=5)),
        ("1=float32[8]", 1, TensorSpec("float32", (8,))),
        ("flag=true", "flag", True),
        ("flag=False", "flag", False),
        ("n=3", "n", 3),
        ("scale=1e-3", "scale", 1e-3),
        ("mask=none", "mask", None),
    ],
)
def test_parse(text: str, name: Any, value: Any) -> None:
    parsed = parse(text)
    assert (parsed.name, parsed.value) == (name, value)
    assert type(parsed.value) is type(value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x=float33[2]", r'no dtype "float33"\. Did you mean float32'),
        ("x=foo[2]", r'no dtype "foo"\.$'),
        ("x=qint8[2]", 'no dtype "qint8"'),
        ("x=float32[2", "does not parse: write"),
        ("x=float32[2,,3]", "does not parse"),
        ("x=float32[-1]", "does not parse"),
        ("x=float32[2.5]", "does not parse"),
        ("x=", "does not parse"),
        ("", "does not parse"),
        ("3", "does not parse"),  # a scalar needs a name
        ("x=abc", "does not parse"),
        ("x=float32[2]<3", "a bound is for integers, and float32 is not one"),
        ("x=int64[2]<0", "the bound after < is a whole number above 0"),
        ("x=int64[2]<1.5", "the bound after < is a whole number above 0"),
        ("x=int64[2]=none", "the value after ] is a number"),
        ("float32[99999999999999999999999,4]", "99999999999999999999999 is too large"),
        ("ids=int64[2,3]<99999999999999999999999", "99999999999999999999999 is too large"),
        ("ids=int64[2]<9223372036854775808", "too large"),  # 2**63
        ("99999999999999999999999=float32[2]", "too large"),
        (f"float32[{'9' * 5000}]", "too large"),  # more digits than Python's int() takes
    ],
)
def test_what_does_not_parse_is_said(text: str, sentence: str) -> None:
    with pytest.raises(AttnprofError, match=sentence):
        parse(text)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, scale: float = 1.0, flag: bool = False) -> Tensor:
        raise AssertionError("inputs are bound, not run")


class Open(nn.Module):
    def forward(self, *xs: Tensor, **named: Tensor) -> Tensor:
        raise AssertionError("inputs are bound, not run")


def bound(model: nn.Module, *texts: str, args: tuple[Any, ...] = (), kwargs: Any = None, seed: int = 0) -> Target:
    made = Target(model, args, kwargs)
    apply([parse(text) for text in texts], made, seed)
    return made


def test_names_positions_and_order() -> None:
    assert bound(Net(), "x=float32[2,4]").kwargs is not None
    assert set(bound(Net(), "x=float32[2,4]", "scale=2.0", "flag=true").kwargs or ()) == {"x", "scale", "flag"}
    in_order = bound(Net(), "float32[2,4]", "bool[2,2]")
    assert [tuple(a.shape) for a in in_order.args] == [(2, 4), (2, 2)]
    assert [tuple(a.shape) for a in bound(Net(), "0=float32[3,4]").args] == [(3, 4)]


def test_an_input_takes_the_place_of_the_targets_own() -> None:
    x = torch.zeros(1, 4)
    by_name = bound(Net(), "x=float32[2,4]", args=(x,))
    assert [tuple(a.shape) for a in by_name.args] == [(2, 4)]
    assert not by_name.kwargs
    by_position = bound(Net(), "0=float32[2,4]", args=(x, None))
    assert tuple(by_position.args[0].shape) == (2, 4)
    assert by_position.args[1] is None
    in_kwargs = bound(Net(), "x=float32[2,4]", kwargs={"x": x, "scale": 2.0})
    assert tuple((in_kwargs.kwargs or {})["x"].shape) == (2, 4)
    assert (in_kwargs.kwargs or {})["scale"] == 2.0


def test_positions_in_any_order() -> None:
    found = bound(Net(), "1=bool[3]", "0=float32[2,4]")
    assert [tuple(a.shape) for a in found.args] == [(2, 4), (3,)]
    before_by_name = bound(Net(), "1=bool[3]", "x=float32[2,4]")
    assert [tuple(a.shape) for a in before_by_name.args] == [(2, 4), (3,)]
    assert not before_by_name.kwargs
    open_ended = bound(Open(), "2=float32[3]", "0=float32[1]", "1=float32[2]")
    assert [tuple(a.shape) for a in open_ended.args] == [(1,), (2,), (3,)]


def test_a_position_takes_the_place_of_the_targets_keyword() -> None:
    own = {"x": torch.zeros(1, 4), "mask": None, "scale": 2.0}
    first = bound(Net(), "float32[2,4]", kwargs=own)
    assert [tuple(a.shape) for a in first.args] == [(2, 4)]
    assert first.kwargs == {"mask": None, "scale": 2.0}
    second = bound(Net(), "1=bool[3]", kwargs=own)
    assert [tuple(a.shape) for a in second.args] == [(1, 4), (3,)]
    assert second.kwargs == {"scale": 2.0}


def test_open_signatures_take_anything() -> None:
    found = bound(Open(), "anything=float32[2]", "float32[3]")
    assert [tuple(a.shape) for a in found.args] == [(3,)]
    assert set(found.kwargs or ()) == {"anything"}


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["y=float32[2]"], r'Net.forward has no argument "y"; it has x, mask, scale, flag'),
        (["masc=float32[2]"], r'has no argument "masc".*Did you mean mask\?'),
        (["mask=bool[2]"], "missing a required argument: 'x'"),
        (["float32[1]", "float32[1]", "float32[1]"], "too many positional arguments"),
        (["1=float32[2]"], "position 1 is given but not position 0"),
        (["0=float32[2]", "2=float32[2]"], "position 2 is given but not position 1"),
        (["x=float32[2]", "x=float32[3]"], 'are both for the argument "x"'),
        (["x=float32[2]", "0=float32[3]"], 'are both for the argument "x"'),
        (["0=float32[3]", "x=float32[2]"], 'are both for the argument "x"'),
        (["float32[3]", "x=float32[2]"], 'are both for the argument "x"'),
        (["0=float32[3]", "0=float32[2]"], 'are both for the argument "x"'),
    ],
)
def test_what_does_not_fit_is_said(texts: list[str], sentence: str) -> None:
    with pytest.raises(AttnprofError, match=sentence):
        bound(Net(), *texts)


def values(text: str, seed: int = 0) -> Tensor:
    return make(parse(text), torch.Generator().manual_seed(seed))


def test_values_are_random_and_repeatable() -> None:
    assert torch.equal(values("float32[100]"), values("float32[100]"))
    assert not torch.equal(values("float32[100]"), values("float32[100]", seed=1))
    assert abs(values("float32[10000]").std().item() - 1) < 0.1  # 10 standard errors of a normal's deviation
    ids = values("int64[10000]<7")
    assert (ids.min(), ids.max()) == (0, 6)
    assert values("int64[1000]").max() == 1  # without a bound: valid for any vocabulary
    assert values("mask=int64[3]=1").tolist() == [1, 1, 1]


def test_inputs_leave_the_global_generator_alone() -> None:
    model, before = Net(), torch.get_rng_state()
    bound(model, "x=float32[2,4]", "mask=int64[3]<5")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "dtype", ["float64", "float16", "bfloat16", "complex64", "bool", "uint8", "int32", "float8_e4m3fn", "complex128"]
)
def test_every_kind_of_dtype_can_be_made(dtype: str) -> None:
    made = values(f"{dtype}[2,3]")
    assert str(made.dtype) == f"torch.{dtype}"
    assert made.shape == (2, 3)


def test_a_tensor_that_cannot_be_made_is_a_sentence() -> None:
    with pytest.raises(AttnprofError, match=r"cannot make float32\[99999999999,999999\] \(400 PB\)"):
        values("x=float32[99999999999,999999]")


def test_fake_inputs_have_no_values() -> None:
    with torch._subclasses.fake_tensor.FakeTensorMode():
        made = make(InputSpec("x", None, TensorSpec("float32", (10**6, 10**6))), torch.Generator(), fake=True)
    assert made.shape == (10**6, 10**6)


def test_inputs_go_where_the_model_is() -> None:
    model = Net().to("meta")
    assert bound(model, "x=float32[2,4]").kwargs["x"].device.type == "meta"  # type: ignore[index]
    fake = Target(model)
    apply([parse("x=float32[2,4]")], fake, fake=True)
    assert fake.kwargs is not None
    assert fake.kwargs["x"].device.type == "cpu"


@pytest.mark.parametrize("text", ["float32[1000000,1000000]", "int64[1000000,1000000]<5"])
def test_inputs_on_meta_take_no_memory(text: str) -> None:
    assert make(parse(text), torch.Generator(), "meta").shape == (10**6, 10**6)
