"""Formulas of recorded modules: each file enters those of one family in :mod:`attnprof.analytic.binding`."""
