"""What is really shipped, judged beside the differentiable model that it was made from."""

from effattack.victim.deployed.deployed import Deployed
from effattack.victim.deployed.onnx_runtime.artefact import onnx

__all__ = ["Deployed", "onnx"]
