"""Features and a few labels in, a classifier out."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from handful.errors import BadInput, nearest

if TYPE_CHECKING:
    from handful.adapt.base import Head

HEADS: Mapping[str, str] = {
    "auto": "handful.adapt.auto:Auto",
    "prototypes": "handful.adapt.prototypes:Prototypes",
    "matching-networks": "handful.adapt.matching:MatchingNetworks",
    "rfs": "handful.adapt.logistic:RFS",
    "metaopt": "handful.adapt.metaopt:MetaOpt",
    "gda": "handful.adapt.gda:GDA",
    "gda-unsupervised": "handful.adapt.gda_unsupervised:GDAUnsupervised",
    "tip-adapter": "handful.adapt.tip:TipAdapter",
    "tip-adapter-f": "handful.adapt.tip:TipAdapterF",
    "tip-x": "handful.adapt.tip_x:TipX",
    "calip": "handful.adapt.calip:CALIP",
    "ape": "handful.adapt.ape:APE",
    "ape-t": "handful.adapt.ape_t:APET",
    "proto-clip": "handful.adapt.proto_clip:ProtoCLIP",
    "proto-clip-f": "handful.adapt.proto_clip_f:ProtoCLIPF",
    "lp++": "handful.adapt.lp:LPPlusPlus",
    "amu-tuning": "handful.adapt.amu:AMUTuning",
    "proker": "handful.adapt.kernel:ProKeR",
    "proker-clap": "handful.adapt.proker_clap:ProKeRCLAP",
    "kernel-cache": "handful.adapt.local_kernel:KernelCache",
    "kernel-ridge": "handful.adapt.kernel:KernelRidge",
    "logistic": "handful.adapt.logistic:Logistic",
    "multi-label-logistic": "handful.adapt.multi_label:MultiLabelLogistic",
    "laso": "handful.adapt.laso:LaSOHead",
    "cupl": "handful.adapt.cupl:CuPL",
    "wca": "handful.adapt.wca:WCA",
    "unifgvc": "handful.adapt.unifgvc:UniFGVC",
    "vdt": "handful.adapt.vdt:VDT",
    "real": "handful.adapt.real:REALLinear",
    "lfa": "handful.adapt.lfa:LFA",
    "lfa-unsupervised": "handful.adapt.lfa_unsupervised:LFAUnsupervised",
    "mf-adapter": "handful.adapt.mf_adapter:MFAdapter",
    "fafd-ldwr": "handful.adapt.fafd:LocalDescriptors",
    "label-description": "handful.adapt.label_description:LabelDescription",
    "prolip": "handful.adapt.prolip:ProLIP",
    "prolip-tip-adapter-f": "handful.adapt.prolip_tip:ProLIPTip",
    "linear-adapter": "handful.adapt.prolip:LinearAdapter",
    "multi-modal-adapter": "handful.adapt.multi_modal_adapter:MultiModalAdapter",
    "zero-shot": "handful.adapt.zero_shot:ZeroShot",
    "pt-map": "handful.adapt.pt_map:PTMAP",
    "easy": "handful.adapt.easy:EASY",
    "bd-cspn": "handful.adapt.bd_cspn:BDCSPN",
    "laplacianshot": "handful.adapt.laplacian:LaplacianShot",
    "putm": "handful.adapt.putm:PUTM",
    "unem": "handful.adapt.unem:UNEM",
    "cipa": "handful.adapt.cipa:CIPA",
    "opta": "handful.adapt.opta:OpTA",
    "laplacian-clustering": "handful.adapt.clustering:LaplacianClustering",
    "transductive-finetuning": "handful.adapt.finetuning:TransductiveFinetuning",
    "tim-adm": "handful.adapt.tim:TIMADM",
    "tim-gd": "handful.adapt.tim:TIMGD",
    "simpleshot": "handful.adapt.simpleshot:SimpleShot",
    "pro2": "handful.adapt.pro2:ProjectAndProbe",
    "teen": "handful.adapt.teen:TEEN",
    "devise": "handful.adapt.compatibility:DeViSE",
    "ale": "handful.adapt.compatibility:ALE",
    "sje": "handful.adapt.compatibility:SJE",
    "latem": "handful.adapt.compatibility:LATEM",
    "eszsl": "handful.adapt.bilinear:ESZSL",
    "sae": "handful.adapt.bilinear:SAE",
    "dap": "handful.adapt.attributes:DAP",
    "iap": "handful.adapt.attributes:IAP",
    "conse": "handful.adapt.mixtures:ConSE",
    "sse": "handful.adapt.mixtures:SSE",
    "sync": "handful.adapt.mixtures:SynC",
    "cmt": "handful.adapt.cmt:CMT",
    "gfzsl": "handful.adapt.gfzsl:GFZSL",
    "zero-shot-prototypes": "handful.adapt.zero_shot_prototypes:ZeroShotPrototypes",
    "gpam": "handful.adapt.gpam:GPAM",
    "private-logistic": "handful.adapt.private:PrivateLogistic",
    "private-search": "handful.adapt.private_search:PrivateSearch",
    "steel": "handful.adapt.steel:Steel",
    "limit-fscil": "handful.adapt.limit:LIMIT",
    "mamba-fscil": "handful.adapt.mamba_fscil:MambaFSCIL",
    "fscil-tricks": "handful.adapt.fscil_tricks:FSCILTricks",
    "aldc": "handful.adapt.aldc:ALDC",
    "dafos-net": "handful.adapt.dafos:DAFOSNet",
}
"""Every head by its public key. Others join through the entry point group ``handful.heads``, or as ``module:Class``."""


def head_class(key: str) -> type[Head]:
    """The class behind a key. Raises `BadInput` naming the nearest key there is."""
    target = HEADS.get(key)
    if target is None:
        outside = {entry.name: entry.value for entry in entry_points(group="handful.heads")}
        target = outside.get(key, key if ":" in key else None)
        if target is None:
            raise BadInput(f"unknown head {key!r}{nearest(key, [*HEADS, *outside])}")
    module, _, name = target.partition(":")
    try:
        found: type[Head] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise BadInput(f"head {key!r} cannot be imported: {error}") from error
    return found


def head(key: str, **params: Any) -> Head:
    """A new head: ``head("gda", alpha=1.0)``. Raises `BadInput` for an unknown key or parameter."""
    cls = head_class(key)
    unknown = [name for name in params if name not in cls._get_param_names()]
    if unknown:
        raise BadInput(f"head {key!r} has no parameter {unknown[0]!r}{nearest(unknown[0], cls._get_param_names())}")
    return cls(**params)


def list_heads() -> list[dict[str, Any]]:
    """Key, first line of the docstring and needs of every head."""
    rows = []
    for key in [*HEADS, *sorted(entry.name for entry in entry_points(group="handful.heads"))]:
        cls = head_class(key)
        rows.append(
            {"key": key, "summary": (cls.__doc__ or "").strip().split("\n")[0], "needs": dict(cls.needs.as_dict())}
        )
    return rows
