"""The weights of an exported model: read, verify and load them. Also part of the served model, without ferhpo."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import nn

WEIGHTS, FITTED = "network.safetensors", "estimator.skops"
MEMBERS = "members"  # the folder of an ensemble's networks


def load_exported(network: nn.Module, folder: Path, description: Mapping[str, Any]) -> nn.Module:
    """Load the weights in an exported model's folder into a network built from its model.json; return the network.

    Raises ValueError if they are not those that model.json describes, RuntimeError if they do not fit.
    """
    is_fitted = (folder / FITTED).exists()
    content = verified_content(folder / (FITTED if is_fitted else WEIGHTS), description)
    if is_fitted:  # the estimator checks which types it may contain
        network.load_state_dict({"_extra_state": torch.frombuffer(bytearray(content), dtype=torch.uint8)})
    else:
        network.load_state_dict(load(content))
    return network.eval()


def verify_members(description: Mapping[str, Any]) -> None:
    """Raise ValueError if the digests of an ensemble's members are not those that its own digest was made of.

    That digest is in the tags of the registered version too; those of the members are in model.json only.
    """
    digests = "".join(str(member.get("weights_sha256")) for member in description.get("members") or [])
    if description.get("weights_sha256") != hashlib.sha256(digests.encode()).hexdigest():
        raise ValueError(
            "the digests of the members in model.json do not give that of the ensemble, so the file was changed; "
            "restore it from a copy, or export the ensemble again"
        )


def verified_content(path: Path, description: Mapping[str, Any]) -> bytes:
    """Return the content of the file of weights. Raises ValueError if its digest is not the one in model.json.

    A model.json without a digest was written by an earlier version; its weights cannot be verified.
    """
    content = path.read_bytes()
    expected, found = description.get("weights_sha256"), hashlib.sha256(content).hexdigest()
    if expected not in (None, found):
        raise ValueError(
            f"{path} has the sha256 {found}; model.json says {expected}, so the weights were damaged or changed; "
            "restore the file from a copy, or export the model again"
        )
    return content
