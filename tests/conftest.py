"""Settings that every test shares."""

from hypothesis import settings

# The same cases on every machine, no time limit per case on a busy one, and no database of past failures.
settings.register_profile("course", max_examples=60, deadline=None, derandomize=True, database=None)
settings.load_profile("course")
