"""Change a composed configuration by overrides: of a resume, a confirmation, an evaluation."""

from collections.abc import Sequence
from typing import Any

from ferhpo.addresses.secrets import hide_all, hide_password
from ferhpo.addresses.trust import trust_address
from ferhpo.components import own_code
from ferhpo.config.input import overrides as texts
from ferhpo.config.input.reader import parse
from ferhpo.config.input.types import typed
from ferhpo.keys import has_key, nearest_key, set_path


def set_values(config: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Apply `key=value` overrides, in Hydra's grammar, to a composed configuration, and return their faults.

    Keys must exist. A mapping that is a value (data.labels) is replaced; config groups and other sections cannot be.
    """
    faults = []
    own_code.allow_overrides(overrides)
    for text in hide_all(overrides):
        key, _, shown = text.partition("=")
        try:
            override = parse(text)
        except ValueError as error:
            faults.append(str(error))
            continue
        if override.is_sweep_override():
            faults.append(f"{key} is {shown}; it must be a single value")
        elif not has_key(config, key):
            faults.append(f"{key} matches no key; {nearest_key(config, key)}")
        elif fault := texts.replacement_fault(config, key):
            faults.append(fault)
        else:
            try:
                set_path(config, key, typed(config, key, override.value()))
                trust_address(key, override.value())
            except ValueError as error:
                faults.append(str(error))
    hide_password(config)
    texts.expand_paths(config)
    return faults
