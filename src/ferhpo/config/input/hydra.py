"""Answers to users of Hydra: its options and keys that ferhpo does not have, each with what does the same here."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ferhpo.keys import closest, has_key, nearest_key

_SPACE = "a sweep searches its space; write e.g. 'space.optim.lr={low: 1.0e-4, high: 0.1, log: true}'"
_NAME = "the name of the sweep comes right after the verb, e.g. ferhpo sweep demo, or the path of its file"
_SHOW = "use ferhpo show NAME"
_DIRECTORY = "add --config-dir DIR"
FLAGS = {
    "-m": _SPACE, "--multirun": _SPACE,
    "-c": _SHOW, "--cfg": _SHOW, "--info": _SHOW, "-i": _SHOW, "--package": _SHOW, "-p": _SHOW, "--resolve": _SHOW,
    "-cn": _NAME, "--config-name": _NAME, "--run": "use ferhpo train NAME", "-r": "use ferhpo train NAME",
    "-cp": _DIRECTORY, "--config-path": _DIRECTORY, "-cd": _DIRECTORY,
    "--experimental-rerun": "use ferhpo sweep --resume NAME", "--hydra-help": "use ferhpo VERB --help",
    "--shell-completion": "ferhpo has no shell completion",
}  # fmt: skip
_KEYS = {
    "hydra.run.dir": "set output_dir=DIR; each sweep has a folder in it",
    "hydra.sweep": "set output_dir=DIR; each sweep has a folder in it",
    "hydra.job.name": "set name=NAME",
    "hydra.launcher": "set compute=local or compute=cluster",
    "hydra/launcher": "set compute=local or compute=cluster",
    "hydra.sweeper": "set sampler=tpe, num_trials=N and the space",
    "hydra/sweeper": "set sampler=tpe, num_trials=N and the space",
    "hydra.mode": _SPACE,
    "hydra.searchpath": _DIRECTORY,
}
_GROUPS_OF_PROJECTS = (
    "experiment",
    "experiments",
    "exp",
    "hparams_search",
    "hparams",
    "trial",
    "run",
    "config",
    "sweep",
)


def flag_answer(arguments: Sequence[str]) -> str | None:
    """Return the answer to the first argument that is an option of Hydra's command line; None if there is none."""
    for text in arguments:
        flag = text.partition("=")[0]
        if flag in FLAGS:
            return f"{flag} is an option of Hydra, which ferhpo does not have; {FLAGS[flag]}"
    return None


def key_answer(key: str, value: str, names: Sequence[str]) -> str | None:
    """Return the fault of an override whose key belongs to Hydra, or is a config group of many of its projects.

    names: the known sweeps
    """
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        answer = next((text for start, text in _KEYS.items() if key.startswith(start)), "leave it out")
        return f"{key} is a setting of Hydra, which ferhpo does not have; {answer}"
    if key in _GROUPS_OF_PROJECTS:
        close = value if value in names else closest(value, names)
        known = f"ferhpo sweep {close}" if close else "ferhpo sweep NAME, with a name of `ferhpo list sweeps`"
        return f"{key} is not a config group of ferhpo, whose sweeps are named after the verb; use {known}"
    return None


def explain(error: Exception, config: Mapping[str, Any] | None = None) -> str:
    """Return what an exception of Hydra or OmegaConf means, in words of ferhpo's configurations.

    config: the configuration that was composed, if it got so far
    """
    key = getattr(error, "full_key", None)
    text = str(error)
    where = f"{key} refers to" if key else "a value refers to"
    if found := re.search(r"Interpolation key '([^']*)' not found", text):
        near = "check its spelling" if config is None or has_key(config, found[1]) else nearest_key(config, found[1])
        return f"{where} ${{{found[1]}}}, which matches no key; {near}"
    if found := re.search(r"Environment variable '([^']*)' not found", text):
        remedy = f"set it, or write ${{oc.env:{found[1]},DEFAULT}}"
        return f"{where} the environment variable {found[1]}, which is not set; {remedy}"
    if not text.strip() or re.search("BRACE_CLOSE|token recognition|(mismatched|extraneous) input|no viable", text):
        return f"{key or 'a value'} has a reference that is not closed or not valid; write ${{key}}, e.g. ${{optim.lr}}"
    if found := re.search(r"(?:while resolving interpolation|Missing mandatory value).*?: ?(\S+)", text, re.DOTALL):
        return f"{where} a value that is not set ({found[1]}); set it, or write the value itself"
    if found := re.search(r"Unsupported interpolation type (\S+)", text):
        return f"{where} the resolver {found[1]}, which does not exist; write the value itself, or ${{oc.env:NAME}}"
    if isinstance(error, RecursionError) or "recursi" in text.lower():
        return "values refer to each other in a circle (${...}); write one of them as a plain value"
    if found := re.search(r"Could not find '([^']*)'|Cannot find primary config '([^']*)'", text):
        return f"the configuration {found[1] or found[2]} does not exist; check the defaults list"
    if found := re.search(r"Multiple values for (\S+?)\.? ", text):
        return f"the defaults list chooses {found[1]} twice; write override {found[1]}: OPTION"
    if found := re.search(r"Could not override '([^']*)'", text):
        remedy = f"list config first: defaults: [config, override {found[1]}: OPTION, _self_]"
        return f"{found[1]} is overridden, but nothing chose it before; {remedy}"
    if found := re.search(r"Value '(.*)' of type '(\w+)' (?:could not be converted|is not)", text):
        remedy = "write text, a number, a list or a section"
        return f"{key or 'a value'} is {found[1]}, which is not a value of a configuration; {remedy}"
    return f"{f'{key}: ' if key else ''}{_first_sentence(text)}"


def _first_sentence(text: str) -> str:
    """Return the first line of a message without the names of Hydra's exceptions."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("full_key:", "object_type", "reference_type"))]
    first = re.sub(r"\b(?:Hydra|OmegaConf|Config\w*Exception|\w+Error)\b:?\s*", "", lines[0]) if lines else ""
    return f"the configuration cannot be composed ({first.rstrip('.') or 'no reason was given'})"
