"""The verb `train`: one training with the configuration as it is, without Ray, recorded as a sweep of one trial."""

from collections.abc import Sequence
from pathlib import Path

from ferhpo.config import validate
from ferhpo.config.compose import compose
from ferhpo.driver import local
from ferhpo.space import Space
from ferhpo.storage.study import SweepStudy
from ferhpo.storage.sweep import create_sweep, tracking_settings
from ferhpo.trial.load_data import load_data
from ferhpo.tuning.finish import finish
from ferhpo.tuning.preflight import make_paths_absolute, refuse_existing, resumed, store_warnings, use_free_name
from ferhpo.tuning.result import SweepResult
from ferhpo.tuning.session import Listener, recording


def train(
    name: str,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    new: bool = False,
    config_dir: Path | None = None,
    listener: Listener = lambda ledger: None,
) -> SweepResult:
    """Train one network with the configuration as it stands, without Ray; recorded as a sweep of one trial."""
    existing = resumed(name, overrides, "train") if resume else None
    composed = existing.composed if existing else compose(name, overrides, config_dir)
    config = composed.config
    config.update(space={}, num_trials=1)
    composed.options.clear()
    if new and existing is None:
        use_free_name(config)
    warnings = validate.check_composed(composed, for_sweep=False)
    make_paths_absolute(config)
    if existing is None:
        refuse_existing(config)
    validate.check_weights(config, composed.space())
    settings = tracking_settings(config)
    warnings += store_warnings(settings)
    data = load_data(composed)
    record = existing or create_sweep(composed, kind="train")
    sampler = {"_target_": "optuna.samplers.RandomSampler"}
    study = SweepStudy(record.folder, Space((), config), sampler, int(config["seed"]), record.objective)
    with recording(record, study, settings, data, 1, listener) as (ledger, drawing, keeper):
        finished = local.run(ledger, data)
        if not finished:
            ledger.interrupt()
        return finish(record, ledger.tracker, drawing, keeper, settings, data.digest, finished, warnings)
