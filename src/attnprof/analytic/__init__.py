"""Closed forms: what theory says a mechanism costs, in symbols, exactly.

``names()`` lists them, ``predict("gqa", B=1, T=4096, d=4096, H=32, Hkv=8)`` makes one. A name that
:mod:`attnprof.zoo` has, too, is the cost of that module.
"""

from attnprof.analytic.prediction import Prediction, Term
from attnprof.analytic.registry import find, formula, names, predict
from attnprof.analytic.training import PRECISIONS, adam_states, two_n_rule

__all__ = ["PRECISIONS", "Prediction", "Term", "adam_states", "find", "formula", "names", "predict", "two_n_rule"]
