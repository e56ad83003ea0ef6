"""Exact FLOPs and bytes of any PyTorch module, per op, per layer, per phase.

Importing attnprof does not import torch: names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnprof import testing, zoo
    from attnprof.analysis.comparison import PredictionError
    from attnprof.analytic import Prediction, predict
    from attnprof.analytic.binding import predicts
    from attnprof.api import Profile, Report, fake_tensors, load, profile, run
    from attnprof.api.calibration import calibrate
    from attnprof.api.crosscheck import crosscheck
    from attnprof.api.extrapolation import Extrapolation, extrapolate
    from attnprof.api.judging import Verdict, judge
    from attnprof.api.opening import load_model
    from attnprof.api.scaling import Scaling, scaling
    from attnprof.api.serving import AttentionIO, Serving, attention_io, serving
    from attnprof.api.study import Study, compare
    from attnprof.capture.plans import Plan
    from attnprof.core.amounts import bytes as bytes
    from attnprof.core.amounts import flops
    from attnprof.core.budget import BudgetError
    from attnprof.core.cost import Cost
    from attnprof.core.errors import AttnprofError, TraceFormatError, UnpricedError
    from attnprof.core.signature import OpSignature
    from attnprof.core.tensor import TensorMeta
    from attnprof.core.work import Work
    from attnprof.costs.registry import user_cost as cost
    from attnprof.hardware.catalog import device, devices
    from attnprof.reports.schemas import json_schema
    from attnprof.testing import budget, check

__version__ = "0.1.0"

_HOMES = {
    "Plan": "attnprof.capture.plans",
    "Profile": "attnprof.api",
    "Report": "attnprof.api",
    "fake_tensors": "attnprof.api",
    "json_schema": "attnprof.reports.schemas",
    "load": "attnprof.api",
    "load_model": "attnprof.api.opening",
    "profile": "attnprof.api",
    "run": "attnprof.api",
    "Extrapolation": "attnprof.api.extrapolation",
    "extrapolate": "attnprof.api.extrapolation",
    "Verdict": "attnprof.api.judging",
    "judge": "attnprof.api.judging",
    "Scaling": "attnprof.api.scaling",
    "scaling": "attnprof.api.scaling",
    "AttentionIO": "attnprof.api.serving",
    "Serving": "attnprof.api.serving",
    "Study": "attnprof.api.study",
    "compare": "attnprof.api.study",
    "Prediction": "attnprof.analytic",
    "predict": "attnprof.analytic",
    "PredictionError": "attnprof.analysis.comparison",
    "predicts": "attnprof.analytic.binding",
    "bytes": "attnprof.core.amounts",
    "flops": "attnprof.core.amounts",
    "BudgetError": "attnprof.core.budget",
    "budget": "attnprof.testing",
    "check": "attnprof.testing",
    "Cost": "attnprof.core.cost",
    "AttnprofError": "attnprof.core.errors",
    "TraceFormatError": "attnprof.core.errors",
    "UnpricedError": "attnprof.core.errors",
    "OpSignature": "attnprof.core.signature",
    "TensorMeta": "attnprof.core.tensor",
    "Work": "attnprof.core.work",
    "calibrate": "attnprof.api.calibration",
    "attention_io": "attnprof.api.serving",
    "crosscheck": "attnprof.api.crosscheck",
    "device": "attnprof.hardware.catalog",
    "devices": "attnprof.hardware.catalog",
    "serving": "attnprof.api.serving",
}

__all__ = [  # not bytes: a star import must not hide the builtin
    "AttentionIO",
    "AttnprofError",
    "BudgetError",
    "Cost",
    "Extrapolation",
    "OpSignature",
    "Plan",
    "Prediction",
    "PredictionError",
    "Profile",
    "Report",
    "Scaling",
    "Serving",
    "Study",
    "TensorMeta",
    "TraceFormatError",
    "UnpricedError",
    "Verdict",
    "Work",
    "attention_io",
    "budget",
    "calibrate",
    "check",
    "compare",
    "cost",
    "crosscheck",
    "device",
    "devices",
    "extrapolate",
    "fake_tensors",
    "flops",
    "json_schema",
    "judge",
    "load",
    "load_model",
    "predict",
    "predicts",
    "profile",
    "run",
    "scaling",
    "serving",
    "testing",
    "zoo",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "cost":
        return importlib.import_module("attnprof.costs.registry").user_cost
    if name in ("testing", "zoo"):
        return importlib.import_module(f"attnprof.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'attnprof' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
