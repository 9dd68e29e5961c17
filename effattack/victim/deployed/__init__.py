"""What ships, in place of the model that attacks were crafted on."""

from effattack.victim.deployed.deployed import Deployed

__all__ = ["Deployed"]
