"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# A loaded machine must not fail a property, and two runs of the suite must be the same run.
settings.register_profile("sea-dbs", deadline=None, derandomize=True)
settings.load_profile("sea-dbs")
