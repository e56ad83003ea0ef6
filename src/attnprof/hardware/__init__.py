"""Devices: one data file each, with the source of every figure, and how a name finds its device."""
