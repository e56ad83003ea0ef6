"""Devices: the figures and where they come from, names, and files of one's own."""
