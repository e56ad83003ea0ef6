"""What another counter said of a run, held against ours: every difference taken apart into named causes."""

from attnprof.analysis.crosscheck.checked import checked

__all__ = ["checked"]
