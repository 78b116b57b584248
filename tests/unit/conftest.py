"""For all unit tests: what Hypothesis may take. The suite runs on busy machines, and measures nothing."""

from hypothesis import settings

settings.register_profile("qemubox", deadline=None)
settings.load_profile("qemubox")
