"""Fused optimizer steps and gradient scaling: the scalar operations of each update, per parameter element."""
