"""Record what many clients do while servers lag, die and change roles, and check that every promise was kept.

``python -m tests.consistency`` prints the figures. The parts: :mod:`history` (what happened, as values),
:mod:`checker` (what contradicts what), :mod:`journeys` and :mod:`worker` (who does it), :mod:`faults` (what
is done to the servers meanwhile), :mod:`run` (one whole history), :mod:`scenes` (all the histories).
"""
