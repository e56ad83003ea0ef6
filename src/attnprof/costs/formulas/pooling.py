"""Pooling: every tap counts; only positions that some window touches are read."""
