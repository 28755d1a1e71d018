"""Signatures of model folders (OpenSSF Model Signing, with keys of one's own): keys.py, folders.py."""

from ferhpo.signing.folders import sign, verify
from ferhpo.signing.keys import Key, create, own_key, trust, trusted

__all__ = ["Key", "create", "own_key", "sign", "trust", "trusted", "verify"]
