"""Change the encoder itself, a little.

A recipe says where something changes, how it begins, what reads the outputs, what is minimised, how a step is made,
how long, and on what (`handful.tune.recipe`); `tune` runs it (`handful.tune.loop`); a `Delta` is what comes out
(`handful.tune.delta`).
"""

from __future__ import annotations

from handful.tune.adapters import Adapter
from handful.tune.average import EMA
from handful.tune.change import CHANGES, Begun, Change, change_of
from handful.tune.compacter import Compacter
from handful.tune.delta import Delta, Merged, Placed
from handful.tune.delta_file import load_delta, save_delta
from handful.tune.dora import DoRA
from handful.tune.fillers import AsIs, CrossEntropy, Linear, Plain, Prototypes, Shuffled
from handful.tune.front import Prefix, PrefixTuning, PromptTuning, SoftPrompt
from handful.tune.fusion import Fusion
from handful.tune.ia3 import IA3, Scaling, ia3
from handful.tune.intrinsic import Intrinsic
from handful.tune.loop import tune
from handful.tune.lora import LoRA
from handful.tune.lora_sb import BRA, FirstStep
from handful.tune.lorma import LoRMA
from handful.tune.masked import Masked, Others
from handful.tune.moved import Moved
from handful.tune.own import Own, Statistics
from handful.tune.recipe import Data, Readout, Recipe, Seen, Stage
from handful.tune.residual import Residual
from handful.tune.sites import ROLES, Site, Where, sites, split_attention
from handful.tune.subnet import Minor, SoftSubnet
from handful.tune.taps import Scored
from handful.tune.tuned import Tuned

__all__ = [
    "BRA",
    "CHANGES",
    "EMA",
    "IA3",
    "ROLES",
    "Adapter",
    "AsIs",
    "Begun",
    "Change",
    "Compacter",
    "CrossEntropy",
    "Data",
    "Delta",
    "DoRA",
    "FirstStep",
    "Fusion",
    "Intrinsic",
    "Linear",
    "LoRA",
    "LoRMA",
    "Masked",
    "Merged",
    "Minor",
    "Moved",
    "Others",
    "Own",
    "Placed",
    "Plain",
    "Prefix",
    "PrefixTuning",
    "PromptTuning",
    "Prototypes",
    "Readout",
    "Recipe",
    "Residual",
    "Scaling",
    "Scored",
    "Seen",
    "Shuffled",
    "Site",
    "SoftPrompt",
    "SoftSubnet",
    "Stage",
    "Statistics",
    "Tuned",
    "Where",
    "change_of",
    "ia3",
    "load_delta",
    "save_delta",
    "sites",
    "split_attention",
    "tune",
]
