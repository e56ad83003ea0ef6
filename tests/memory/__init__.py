"""What a run holds in memory, to the byte."""
