"""Collectives: data moved between devices."""
