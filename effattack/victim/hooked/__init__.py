"""A user's own model as a victim: its decisions are named, and read while it runs.

victim = Hooked(
    model,
    [Decision("exit", tensor="exits.0", rule=above(0.9, confidence), threshold="threshold")],
    input_shape=(3, 224, 224),
)
"""

from effattack.victim.hooked.decision import Decision
from effattack.victim.hooked.hooked import Hooked
from effattack.victim.hooked.rules import above, below, confidence, entropy, kept, lead

__all__ = ["Decision", "Hooked", "above", "below", "confidence", "entropy", "kept", "lead"]
