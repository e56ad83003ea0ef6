"""Sorting and selecting: labelled models, since the comparisons made depend on the data."""
