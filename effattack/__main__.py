"""``python -m effattack``: the same as the ``effattack`` command."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the current folder, which -m puts first: a pandas.py there is not pandas

from effattack.cli import command

sys.exit(command())
