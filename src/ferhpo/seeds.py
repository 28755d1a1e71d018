"""Derive seeds from the sweep's seed. Nothing in ferhpo uses a global random state."""

import hashlib
from collections.abc import Sequence


def derive_seed(seed: int, number: int, purpose: str) -> int:
    """Return a seed in [0, 2**31) that depends on the sweep's seed, the trial's number and the purpose."""
    digest = hashlib.sha256(f"{seed}/{number}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def fresh_seeds(number: int, sweep_seed: int, used: Sequence[int]) -> list[int]:
    """Return `number` distinct seeds that are not in `used`.

    The result is deterministic, and a longer list starts with the shorter one.
    """
    seeds: list[int] = []
    index = 0
    while len(seeds) < number:
        seed = derive_seed(sweep_seed, index, "confirm")
        if seed not in used and seed not in seeds:
            seeds.append(seed)
        index += 1
    return seeds
