"""No property has a deadline: a first example may load a library, on a machine that others use."""

from hypothesis import settings

settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
