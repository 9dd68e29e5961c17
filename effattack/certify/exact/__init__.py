"""The exact worst case of small networks whose gates are score margins."""

from effattack.certify.exact.optimum import Optimum, exact, optima

__all__ = ["Optimum", "exact", "optima"]
