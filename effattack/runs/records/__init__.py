"""Making records (:mod:`.making`), and counting them again (:mod:`.checking`).

What one is: :mod:`effattack.results.records`.
"""
