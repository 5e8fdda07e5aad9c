"""No property has a deadline: a first example may load a library, on a machine that others use."""

from hypothesis import Phase, settings

settings.register_profile("busy", deadline=None)
ANY_FAILURE = [Phase.explicit, Phase.generate]  # a mutant's needs no smallest example
settings.register_profile("mutants", deadline=None, database=None, phases=ANY_FAILURE)
settings.load_profile("busy")
