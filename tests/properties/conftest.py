"""Hypothesis settings for all properties: how long an example takes is the machine's load, not a property."""

from hypothesis import HealthCheck, settings

settings.register_profile("edgemodel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgemodel")
