"""Foreach ops: over each list, the price of the single-tensor op."""
