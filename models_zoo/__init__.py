"""The victims: one mechanism per file, and the trained ones by name.

Import this package by its long name, ``effattack.models_zoo``.
"""

from effattack.models_zoo.cascade.cascade import Cascade, TinySaver
from effattack.models_zoo.cascade.esn import ESN
from effattack.models_zoo.cascade.search import search_robust_saver, search_saver
from effattack.models_zoo.checkpoints import read_checkpoint
from effattack.models_zoo.detection.detector import Detector
from effattack.models_zoo.detection.mtcnn import MTCNN
from effattack.models_zoo.detection.pipeline import Pipeline
from effattack.models_zoo.detection.rules import Rules
from effattack.models_zoo.detection.two_stage import TwoStage
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.early_exit.exit_vit import ExitViT
from effattack.models_zoo.early_exit.msdnet import MSDNet
from effattack.models_zoo.early_exit.sdn import SDN
from effattack.models_zoo.generation.encoder_decoder import EncoderDecoder
from effattack.models_zoo.generation.generator import Generator
from effattack.models_zoo.generation.reasoner import Reasoner
from effattack.models_zoo.generation.wrapping import wrap
from effattack.models_zoo.graphs.links import LinkPredictor
from effattack.models_zoo.layer_skipping.skipnet import SkipNet
from effattack.models_zoo.matching.lightglue import LightGlue
from effattack.models_zoo.multimodal.gated import ModalityCascade
from effattack.models_zoo.preprocessing import Preprocess, preprocessed
from effattack.models_zoo.quantization.gated import QuantizedGates, StaticInt8Gates
from effattack.models_zoo.quantization.llm_int8 import LLMInt8
from effattack.models_zoo.quantization.pruned import Pruned
from effattack.models_zoo.quantization.quantized import Quantized
from effattack.models_zoo.quantization.static_int8 import StaticInt8
from effattack.models_zoo.series.early_reading import EarlyReading
from effattack.models_zoo.series.merging import NeighbourMerging
from effattack.models_zoo.sound.whisper import Whisper
from effattack.models_zoo.text.sentence_exits import SentenceExits
from effattack.models_zoo.text.token_exits import TokenExits
from effattack.models_zoo.token_sparsification.adavit import AdaViT
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.models_zoo.token_sparsification.avit import AViT
from effattack.models_zoo.token_sparsification.dynamicvit import DynamicViT
from effattack.models_zoo.token_sparsification.evit import EViT
from effattack.models_zoo.token_sparsification.tome import ToMe
from effattack.victim import load_victim as load

__all__ = [
    "ATS",
    "ESN",
    "MTCNN",
    "SDN",
    "AViT",
    "AdaViT",
    "Cascade",
    "Detector",
    "DynamicViT",
    "EViT",
    "EarlyExit",
    "EarlyReading",
    "EncoderDecoder",
    "ExitViT",
    "Generator",
    "LLMInt8",
    "LightGlue",
    "LinkPredictor",
    "MSDNet",
    "ModalityCascade",
    "NeighbourMerging",
    "Pipeline",
    "Preprocess",
    "Pruned",
    "Quantized",
    "QuantizedGates",
    "Reasoner",
    "Rules",
    "SentenceExits",
    "SkipNet",
    "StaticInt8",
    "StaticInt8Gates",
    "TinySaver",
    "ToMe",
    "TokenExits",
    "TwoStage",
    "Whisper",
    "load",
    "preprocessed",
    "read_checkpoint",
    "search_robust_saver",
    "search_saver",
    "wrap",
]
