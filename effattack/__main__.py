"""``python -m effattack``: the same as the ``effattack`` command."""

import sys

from effattack.cli import main

sys.exit(main())
