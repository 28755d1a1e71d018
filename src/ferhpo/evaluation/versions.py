"""Versions of registered models: found by name, and the sweep here that one was made from."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ferhpo.config.compose import compose
from ferhpo.errors import ConfigError, SweepError
from ferhpo.storage.meta import META
from ferhpo.storage.sweep import Sweep, load_sweep
from ferhpo.tracking import TrackingSettings, run_of

if TYPE_CHECKING:
    from ferhpo.tracking.registry import Version

REQUIRE_SIGNATURE = "security.require_signature"
REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[^/@]+))")


def find_version(
    name: str,
    output_dir: str | Path,
    stores: Sequence[str],
    config_dir: Path | None,
    given: TrackingSettings | None = None,
) -> tuple[TrackingSettings, "Version"]:
    """Return the store and the version that models:/NAME@ALIAS or models:/NAME/VERSION names.

    Raises SweepError for another form, TrackingError without such a version.
    """
    from ferhpo.tracking import registry

    match = REGISTERED.fullmatch(name)
    if match is None:
        raise SweepError(f"{name} is not the name of a model; write models:/NAME@ALIAS or models:/NAME/VERSION")
    if given is None:
        section = compose(None, stores, config_dir).config["tracking"]
        given = TrackingSettings.from_config(section, Path(output_dir))
    return given, registry.find(given, match["name"], match["alias"] or match["version"])


def signature_required(overrides: Sequence[str]) -> tuple[bool, list[str]]:
    """Return whether a registered model without a signature is refused, and the other overrides.

    $FERHPO_REQUIRE_SIGNATURE asks for it too. Raises ConfigError for a value that is neither true nor false.
    """
    texts = {"environment": os.environ.get("FERHPO_REQUIRE_SIGNATURE", "")}
    texts |= {text: text.partition("=")[2] for text in overrides if text.partition("=")[0] == REQUIRE_SIGNATURE}
    for where, text in texts.items():
        if text.lower() not in ("", "0", "1", "false", "true"):
            shown = "FERHPO_REQUIRE_SIGNATURE" if where == "environment" else REQUIRE_SIGNATURE
            raise ConfigError("signatures", [f"{shown} is {text:.40}; it must be true or false"])
    is_required = any(text.lower() in ("1", "true") for text in texts.values())
    return is_required, [text for text in overrides if text not in texts]


def local_trial(version: "Version", tracking: TrackingSettings, output_dir: Path) -> tuple[Sweep | None, int | None]:
    """Return the sweep and trial that a version was made from, if their folder is here; of an ensemble, its sweep."""
    name, text = version.tags.get("ferhpo.sweep"), version.tags.get("ferhpo.trial", "")
    if name is None or Path(name).name != name or not (output_dir / name / META).exists():
        return None, None
    if not text.isdecimal() and "ferhpo.ensemble" not in version.tags:
        return None, None
    sweep, number = load_sweep(name, output_dir), int(text) if text.isdecimal() else None
    if version.run_id is None or run_of(sweep.folder, tracking, number) != version.run_id:
        return None, None  # another sweep with the same name
    return sweep, number
