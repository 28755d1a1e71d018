"""The verbs `promote` and `rollback`: move an alias of a registered model behind gates, and back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ferhpo.config.files import config_roots, group_files, is_users
from ferhpo.config.input.reader import load_yaml
from ferhpo.errors import ConfigError, FerhpoError, TrackingError
from ferhpo.keys import nearest
from ferhpo.promotion.card import card
from ferhpo.promotion.facts import examine
from ferhpo.promotion.gates import Gates, Passed, asks_anything, read_gates, tried
from ferhpo.promotion.purpose import check_purpose
from ferhpo.storage.provenance import git_state
from ferhpo.storage.sweep import load_sweep
from ferhpo.tracking import registry
from ferhpo.tracking.registered import aliases
from ferhpo.tracking.registered.signed import sign_version
from ferhpo.tracking.registry import DEFAULT_ALIAS, Version

DEFAULT_GATES = "default"


class GatesError(FerhpoError):
    """A promotion that gates refuse. Its text has every reason, `faults` each by itself, `results` every gate.

    notes: what else there is to know, e.g. how often the test images were read
    """

    exit_status = 4

    def __init__(
        self, text: str, faults: Sequence[str], results: Sequence[Passed] = (), notes: Sequence[str] = ()
    ) -> None:
        super().__init__(text)
        self.faults, self.results, self.notes = tuple(faults), tuple(results), tuple(notes)


@dataclass(frozen=True)
class Promotion:
    """An alias that was moved to `version`.

    previous: the version that it named before, or None
    gates: the result of each gate that was asked; forced: the reason, if it was moved in spite of them
    """

    name: str
    alias: str
    version: int
    previous: int | None
    gates: list[Passed] = field(default_factory=list)
    forced: str = ""
    notes: list[str] = field(default_factory=list)


def promote(
    name: str,
    alias: str = DEFAULT_ALIAS,
    version: int | None = None,
    output_dir: str | Path = "mlruns",
    *,
    model: str | None = None,
    gates: str = DEFAULT_GATES,
    purpose: str = "",
    force: str = "",
    config_dir: Path | None = None,
) -> Promotion:
    """Move an alias to a version of the model that sweep `name` registered, if it passes the gates.

    name: of a sweep or a confirmation
    version: by default the newest one of this sweep or of a confirmation of it; other sweeps may use the same model
    model: the name of the registered model; by default that of the sweep
    gates: the name of a file gates/NAME.yaml; purpose: what the model is for, which is recorded
    force: a reason to move the alias although gates refuse; it is recorded with them
    Raises GatesError with every reason of the gates; ConfigError, SweepError, DataError, TrackingError.
    """
    check_purpose(purpose)
    asked = gates_of(gates, config_dir)
    sweep = load_sweep(name, output_dir)
    settings = sweep.tracking
    name = model or settings.registered_name(sweep.name)
    registry.check_alias(alias)
    known = registry.versions(settings, name)
    candidate = registry.choose(known, name, sweep.name, version)
    champion = next((each for each in known if alias in each.aliases), None)
    rival = None if champion is None or champion.number == candidate.number else champion  # no version beats itself
    results, notes, examined = [], list[str](), None
    if asks_anything(asked):
        examined = examine(candidate, rival, purpose, sweep.folder.parent, settings)
        results, notes = tried(asked, examined.facts), examined.facts.notes
    refused = [result for result in results if not result.passed]
    if refused and not force:
        reasons = [f"{each.gate}: {each.found}; asked: {each.asked}" for each in refused]
        raise GatesError(_refusal(name, candidate, alias, reasons), reasons, results, notes)
    about = {
        "gates": gates,
        "results": [[each.gate, each.passed, each.found] for each in results],
        "purpose": purpose,
        "forced": force,
        "commit": git_state().get("commit", ""),
        "sweep": sweep.name,
    }
    expected = None if champion is None else champion.number
    text = "" if examined is None else card(examined, candidate, results, force)
    if note := sign_version(settings, candidate):
        notes = [*notes, note]
    aliases.move(settings, name, alias, candidate.number, expected, "promote", about)
    if text:
        registry.describe_version(settings, name, candidate.number, text)
    return Promotion(name, alias, candidate.number, expected, results, force, notes)


def rollback(
    name: str,
    alias: str = DEFAULT_ALIAS,
    output_dir: str | Path = "mlruns",
    *,
    model: str | None = None,
    reason: str = "",
) -> Promotion:
    """Move an alias back to the version that it named before its last promotion.

    name: of a sweep or a confirmation; model: the name of the registered model; by default that of the sweep
    Raises TrackingError if there is no such version.
    """
    sweep = load_sweep(name, output_dir)
    settings = sweep.tracking
    name = model or settings.registered_name(sweep.name)
    registry.check_alias(alias)
    log = aliases.entries(settings, name, alias)
    known = registry.versions(settings, name)
    current = next((version.number for version in known if alias in version.aliases), None)
    if current is None:
        raise TrackingError(f"{name}@{alias} names no version, so there is nothing to move back")
    last = next((entry for entry in log if entry.version == current and entry.previous is not None), None)
    if last is None or last.previous is None:
        raise TrackingError(
            f"the audit log of {name} has no version that {alias} named before version {current}; name one with "
            f"{sweep.command('promote')} --version N"
        )
    if last.previous not in {version.number for version in known}:
        raise TrackingError(f"{name}@{alias} named version {last.previous} before, which was deleted")
    aliases.move(settings, name, alias, last.previous, current, "rollback", {"reason": reason})
    return Promotion(name, alias, last.previous, current)


def gates_of(name: str, config_dir: Path | None = None) -> Gates:
    """Return the gates of a file gates/NAME.yaml, of the configuration folder or of ferhpo. Raises ConfigError.

    Files in conf/ and sweeps/ of the current folder do not count: anyone may have written them.
    """
    roots = [root for root in config_roots(config_dir) if is_users(root / "gates")]
    files = group_files("gates", roots=roots)
    if name not in files:
        raise ConfigError("promote", [f"--gates is {name}, which does not exist; {nearest(name, files)}"])
    return read_gates(load_yaml(files[name]) or {}, str(files[name]))


def _refusal(name: str, candidate: Version, alias: str, reasons: Sequence[str]) -> str:
    how_many = "a gate refuses it" if len(reasons) == 1 else f"{len(reasons)} gates refuse it"
    lines = [f"{name} version {candidate.number} does not become {alias}: {how_many}"]
    lines += [f"  {reason}" for reason in reasons]
    lines.append("  to move the alias in spite of that, add --force REASON, which is recorded")
    return "\n".join(lines)


def store_of(name: str, output_dir: str | Path = "mlruns") -> str:
    """Return the address of a sweep's MLflow store, without its password."""
    return load_sweep(name, output_dir).tracking.shown_uri
