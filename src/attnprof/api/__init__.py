"""The public surface: wrap code in :func:`profile`, or count one call with :func:`run`."""

from attnprof.api.profile import Profile, profile
from attnprof.api.report import Report, load
from attnprof.api.running import drive, fake_tensors, run

__all__ = ["Profile", "Report", "drive", "fake_tensors", "load", "profile", "run"]
