"""What is really shipped, judged beside the differentiable model that it was made from."""

from effattack.victim.deployed.deployed import Deployed

__all__ = ["Deployed"]
