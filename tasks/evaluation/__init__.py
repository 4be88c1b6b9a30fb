"""Win rate, alignment tax, safety.

``policy_sheet`` measures one policy and writes a ``sheet``; ``compare`` sets the sheets of a run side by side;
``report`` makes one page of it. The statistics are in ``win_rate``, ``best_of_n``, ``regression``, ``benchmarks``
and ``safety``.
"""
