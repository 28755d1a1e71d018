"""Derive seeds from the sweep's seed. Nothing in ferhpo draws from a global random state."""

import hashlib
from collections.abc import Sequence


def derive_seed(seed: int, number: int, purpose: str) -> int:
    """A seed in [0, 2**31) that depends on the sweep's seed, the trial's number and what it is for."""
    digest = hashlib.sha256(f"{seed}/{number}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def fresh_seeds(number: int, sweep_seed: int, used: Sequence[int]) -> list[int]:
    """So many seeds that no trial of the sweep had; the same for the same sweep, and more begin with the fewer."""
    found: list[int] = []
    index = 0
    while len(found) < number:
        seed = derive_seed(sweep_seed, index, "confirm")
        if seed not in used and seed not in found:
            found.append(seed)
        index += 1
    return found
