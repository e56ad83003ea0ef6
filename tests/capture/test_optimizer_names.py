"""Optimizers as they are written on the command line."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attnprof import AttnprofError
from attnprof.capture.optimizers import parse


@pytest.mark.parametrize(
    ("text", "kind", "options"),
    [
        ("adamw", torch.optim.AdamW, {}),
        ("AdamW", torch.optim.AdamW, {}),
        (" sgd , momentum = 0.9 ", torch.optim.SGD, {"momentum": 0.9}),
        ("adamw:fused", torch.optim.AdamW, {"fused": True}),
        ("adamw:FOREACH", torch.optim.AdamW, {"foreach": True}),
        ("adamw:loop", torch.optim.AdamW, {"foreach": False, "fused": False}),
        ("adadelta:loop", torch.optim.Adadelta, {"foreach": False}),
        ("adam,betas=(0.9, 0.95),amsgrad=true", torch.optim.Adam, {"betas": (0.9, 0.95), "amsgrad": True}),
        ("sgd:fused,nesterov=True,momentum=.9", torch.optim.SGD, {"fused": True, "nesterov": True, "momentum": 0.9}),
        ("muon,adjust_lr_fn=match_rms_adamw", torch.optim.Muon, {"adjust_lr_fn": "match_rms_adamw"}),
        ("adafactor,eps=(None,1e-3)", torch.optim.Adafactor, {"eps": (None, 1e-3)}),
        ("rmsprop,", torch.optim.RMSprop, {}),
    ],
)
def test_names(text: str, kind: type[torch.optim.Optimizer], options: dict[str, Any]) -> None:
    spec = parse(text)
    assert (spec.kind, spec.options) == (kind, options)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", 'optimizer "" does not parse: write NAME[:VARIANT][,KEY=VALUE...], such as adamw'),
        ("adam w", "does not parse"),
        ("adamv", 'no optimizer "adamv". Did you mean adam'),
        ("Optimizer", 'no optimizer "Optimizer"'),
        ("xyzzy", 'no optimizer "xyzzy". torch.optim has adadelta, adafactor'),
        ("adamw:fusedd", 'AdamW has no variant "fusedd"; its variants are loop, foreach, fused.'),
        ("adadelta:fused", 'Adadelta has no variant "fused"; its variants are loop, foreach.'),
        ("sparseadam:loop", 'SparseAdam has no variant "loop"; it has one implementation and no variants.'),
        ("adamw:", 'AdamW has no variant ""'),
        ("sgd,momentun=1", 'SGD takes no "momentun"; it takes lr, momentum, dampening, weight_decay, nesterov'),
        ("adamw,fused=true", 'AdamW takes no "fused"; it takes lr, betas'),
        ("sgd,momentum", "momentum= has no value: write a number"),
        ("sgd,momentum=high", "momentum=high has no value: write a number"),
        ("sgd,lr=__import__('os')", "has no value"),
        ("lbfgs", "LBFGS calls the model itself"),
    ],
)
def test_names_that_are_none(text: str, sentence: str) -> None:
    with pytest.raises(AttnprofError) as raised:
        parse(text)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)
