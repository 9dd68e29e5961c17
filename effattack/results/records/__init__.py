"""Records: attacked inputs of a victim that anybody can count again, and the files they lie in.

They are made and counted in :mod:`effattack.runs.records`.
"""
