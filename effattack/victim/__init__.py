"""The contract between a victim and everything else."""

from effattack.victim.audit import Audit, audit
from effattack.victim.by_name import load_victim
from effattack.victim.contract import Victim
from effattack.victim.opaque import Opaque
from effattack.victim.rounding import margin_slack
from effattack.victim.trace import Gate, Trace

__all__ = [
    "Audit",
    "Gate",
    "Opaque",
    "Trace",
    "Victim",
    "audit",
    "load_victim",
    "margin_slack",
]
