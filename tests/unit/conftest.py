"""For all unit tests: what Hypothesis may take. The suite runs on busy machines, and measures nothing."""

from hypothesis import HealthCheck, settings

settings.register_profile("qemubox", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("qemubox")
