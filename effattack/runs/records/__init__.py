"""Records: attacked inputs of a victim that anybody can count again.

A record (:mod:`.record`) says where the clean inputs come from, how each was changed, and what was
counted. :mod:`.making` makes one, :mod:`.checking` counts it again.
"""
