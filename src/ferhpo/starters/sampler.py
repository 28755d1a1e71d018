"""A sampler of your own: a subclass of an Optuna sampler.

ferhpo creates a new one for each trial, so it takes what it needs from the study and keeps nothing in the object.
`seed` is derived from the sweep's seed and the number of the trial: a resumed sweep samples what an uninterrupted one
would.
"""

import optuna


class Starter(optuna.samplers.QMCSampler):
    """Halton points, which fill the space evenly."""

    def __init__(self, seed: int | None = None, scramble: bool = True) -> None:
        super().__init__(qmc_type="halton", scramble=scramble, seed=seed, warn_independent_sampling=False)
