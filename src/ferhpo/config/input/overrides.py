"""Overrides as the user typed them: paths as they are, and answers to what Hydra's own sweeps are written as.

Hydra's grammar refuses many characters of file names, e.g. parentheses, unless they are quoted, and reads a folder
named 2024 as a number. The value of a path setting is therefore taken literally, apart from quotes, null and ${...}.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ferhpo.components import own_code
from ferhpo.config.files import GROUPS
from ferhpo.keys import get_path, has_key, leaves, nearest, nearest_key
from ferhpo.space.link import show

# The last word of a key whose value is a path
PATH_WORDS = ("path", "dir", "uri", "folder", "file", "filename", "root")
TEXT_KEYS = ("name", "tracking.experiment", "tracking.registered_model_name")
FILE_OR_WORD = ("weights", "clean")  # a path, or one of WORDS
WORDS = ("none", "imagenet")
SEARCHED = ("model", "optim", "lr_schedule", "augment", "trainer")  # sections that a space may draw
MOST_CHARACTERS, MOST_BRACKETS = 20_000, 50
_SWEEP = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag)\(.*\)", re.DOTALL)

# What users of other tools call an option, by group.
MEANT = {
    "sampler": {
        "bayes": "tpe", "bayesian": "tpe", "bayesopt": "tpe", "bayes_opt": "tpe", "bo": "tpe", "gaussian": "tpe",
        "gp": "tpe", "gaussian_process": "tpe", "optuna": "tpe", "hyperopt": "tpe", "smbo": "tpe", "parzen": "tpe",
        "random_search": "random", "randomsearch": "random", "rs": "random", "grid_search": "grid",
        "gridsearch": "grid", "cma": "cmaes", "cma-es": "cmaes", "cma_es": "cmaes", "evolution": "cmaes",
        "sobol": "qmc", "halton": "qmc", "quasirandom": "qmc", "quasi_random": "qmc",
    },
    "scheduler": {
        "fifo": "none", "no": "none", "off": "none", "sha": "asha", "successive_halving": "asha",
        "async_hyperband": "hyperband", "asynchyperband": "hyperband", "median_stopping": "median",
    },
    "optim": {"adam_w": "adamw", "rms_prop": "rmsprop", "rms": "rmsprop", "momentum": "sgd", "nesterov": "sgd"},
    "lr_schedule": {
        "cosine_annealing": "cosine", "onecycle": "one_cycle", "reduce_on_plateau": "plateau", "none": "constant",
        "reduce_lr_on_plateau": "plateau", "steplr": "step", "multistep": "step",
    },
    "model": {"resnet18": "torchvision", "resnet34": "torchvision", "resnet50": "torchvision", "vgg": "torchvision",
              "vgg19": "torchvision", "efficientnet": "torchvision", "svm": "linear_svm", "mlp": "feed_forward",
              "transformer": "vit", "tree": "decision_tree", "convnet": "cnn"},
    "augment": {"no": "none", "off": "none", "default": "standard", "weak": "flip", "mirror": "flip"},
    "data": {"fer": "fer2013", "fer-2013": "fer2013", "ferplus": "fer2013", "fer+": "fer2013", "ck+": "ckplus",
             "ck": "ckplus", "folder": "image_folder", "imagefolder": "image_folder", "images": "image_folder"},
    "compute": {"ray": "cluster", "slurm": "cluster", "gpu": "local", "cpu": "local"},
    "tracking": {"off": "none", "no": "none", "false": "none", "ml_flow": "mlflow"},
}  # fmt: skip
# Words that name a combination of two groups, or a method of another group.
COMBINED = {
    "bohb": "sampler=tpe scheduler=hyperband",
    "dehb": "sampler=cmaes scheduler=hyperband",
    "pbt": "sampler=tpe scheduler=asha (population-based training changes hyperparameters during a trial)",
}


def literal(text: str) -> str:
    """Return an override in Hydra's grammar, with the value quoted if its key takes a path or free text."""
    key, equals, value = text.partition("=")
    plain = key.lstrip("+")
    if not equals or key.startswith("~") or not _takes_text(plain, value):
        return text
    return f"{key}={quote(value)}"


def as_text(text: str) -> str | None:
    """Return an override that Hydra cannot parse with its value quoted; None if it was meant as something else."""
    key, equals, value = text.partition("=")
    bracketed = value.lstrip().startswith(("[", "{", "'", '"', "${"))
    return None if not equals or bracketed or not value else f"{key}={quote(value)}"


def quote(value: str) -> str:
    """Return a text as a quoted string of Hydra's grammar."""
    value = re.sub(r"(\\*)'", r"\1\1\\'", value)
    value = re.sub(r"(\\+)$", r"\1\1", value)
    return f"'{value}'"


def is_path_key(key: str) -> bool:
    """Return whether the value of a dotted key is a path or the address of a store."""
    return key.rpartition(".")[2].rpartition("_")[2] in PATH_WORDS


def names_file(key: str, value: object) -> bool:
    """Return whether a setting is a path or the address of a store, and not one of the words in their place."""
    return is_path_key(key) or (key.rpartition(".")[2] in FILE_OR_WORD and value not in WORDS)


def _takes_text(key: str, value: str) -> bool:
    if value.strip() in ("", "null", "???") or "${" in value:
        return False
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return False
    if not (is_path_key(key) or key in TEXT_KEYS):
        is_file = key.rpartition(".")[2] in FILE_OR_WORD and ("/" in value or value.startswith("~") or _exists(value))
        if not is_file:
            return False
    if value.startswith("{") and value.endswith("}"):
        return False
    if "\\" in value or _SWEEP.fullmatch(value):  # escaped for Hydra's grammar, or in it, unless it is a file's name
        return _exists(value)
    return True


def _exists(value: str) -> bool:
    try:
        return Path(value).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def expand_paths(config: dict[str, Any], above: str = "") -> None:
    """Replace a leading ~ in every path setting, from a file or an override, by the user's home folder."""
    for key, value in config.items():
        path = f"{above}{key}"
        if isinstance(value, dict):
            if path != "space":
                expand_paths(value, f"{path}.")
        elif isinstance(value, str) and "~" in value and (is_path_key(path) or str(key) in FILE_OR_WORD):
            config[key] = expand(value)


def expand(value: str) -> str:
    """Return a path, or the address of a SQLite store, with a leading ~ replaced by the user's home folder."""
    match = re.match(r"(sqlite:///)?(~.*)", value, re.DOTALL)
    if match is None:
        return value
    try:
        return (match[1] or "") + str(Path(match[2]).expanduser())
    except RuntimeError:  # no such user
        return value


def unquoted(value: str) -> str:
    """Return the value of a path setting that is read outside a configuration, without quotes and with ~ expanded."""
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return expand(value[1:-1] if quoted else value)


def size_fault(text: str) -> str | None:
    """Return why an override is too large to be parsed; None if it is not."""
    key = text.partition("=")[0]
    if len(text) > MOST_CHARACTERS:
        return f"{key:.60} has {len(text):,} characters; an override has at most {MOST_CHARACTERS:,}; use a sweep file"
    depth = deepest = 0
    for character in text:
        depth += (character in "[{(") - (character in "]})")
        deepest = max(deepest, depth)
    if deepest > MOST_BRACKETS:
        return f"{key:.60} has {deepest} nested brackets; an override has at most {MOST_BRACKETS}"
    return None


def parse_fault(text: str) -> str:
    """Return the fault of an override that cannot be parsed, even as text."""
    key, equals, value = text.partition("=")
    shown = f"override {text!r:.120}"
    if not equals:
        return f"{shown} is not KEY=VALUE; write e.g. optim.lr=0.01, or ~KEY to remove an entry of the space"
    if not re.fullmatch(r"[+~]{0,2}[\w@/.\-:]+", key):
        return f"{shown} cannot be parsed: {key!r:.60} is not a key; write KEY=VALUE, e.g. optim.lr=0.01"
    if any(value.count(one) != value.count(other) for one, other in ("[]", "{}")):
        remedy = "write lists as [1, 2] and sections as {low: 1, high: 2}"
        return f"{shown} cannot be parsed: a bracket is not closed; {remedy}"
    return (
        f"{shown} cannot be parsed; write key=value, with a text that has special characters in quotes: {key}=\"'...'\""
    )


def sweep_fault(key: str, text: str, value: Any, group_options: Mapping[str, Sequence[str]]) -> str:
    """Return the fault of an override with several values, as Hydra's sweeps have: with the space that does it.

    value: what Hydra parsed: choices, a range, an interval or a glob
    """
    given = f"{key} is {text.partition('=')[2]}; it must be a single value"
    section = key.split(".")[0]
    if key == "seed":
        return f"{given}; run one sweep per seed, or retrain the best trials on fresh seeds with: ferhpo confirm SWEEP"
    if section == "data":
        return f"{given}; data settings cannot be searched, because the data set is loaded once per sweep"
    if section not in SEARCHED:
        return f"{given}; {section} cannot be searched; run one sweep per value"
    if key in group_options:
        names = _matching(value, group_options[key])
        return f"{given}; to search over several, use 'space.{key}={{options: [{', '.join(names) or '...'}]}}'"
    return f"{given}; to search over several, use 'space.{key}={_draw(value)}'"


def _draw(value: Any) -> str:
    """Return the draw that does what a sweep of Hydra's does."""
    log = ", log: true" if "log" in getattr(value, "tags", ()) else ""
    if hasattr(value, "list"):  # choice(...), or values with commas
        return f"{{choices: [{', '.join(show(_plain(item)) for item in value.list)}]}}"
    if hasattr(value, "step"):  # range(start, stop, step), without stop
        start, step = value.start or 0, value.step or 1
        whole = all(float(number).is_integer() for number in (start, step, value.stop))
        count = max(int(-((start - value.stop) // step)), 1)
        high = start + (count - 1) * step
        numbers = [int(number) if whole else float(number) for number in (start, high, step)]
        steps = "" if whole and numbers[2] == 1 else f", step: {numbers[2]}"
        return f"{{low: {numbers[0]}, high: {numbers[1]}{steps}{log}}}"
    if hasattr(value, "end"):  # interval(start, end)
        return f"{{low: {float(value.start)}, high: {float(value.end)}{log}}}"
    return "{choices: [...]}"


def _matching(value: Any, names: Sequence[str]) -> list[str]:
    """Return the options that a sweep of Hydra's over a group means."""
    if hasattr(value, "filter"):  # glob
        return [str(name) for name in value.filter(list(names))]
    return [str(_plain(item)) for item in getattr(value, "list", [])]


def _plain(item: Any) -> Any:
    return getattr(item, "text", item)


def option_fault(group: str, option: str, group_options: Mapping[str, Sequence[str]]) -> str:
    """Return the fault of an unknown option of a group, with what was probably meant."""
    names = group_options[group]
    plain = option.lower()
    if plain in COMBINED:
        return f"{group} is {option}; ferhpo has it as two settings: {COMBINED[plain]}"
    meant = plain if plain in names else MEANT.get(group, {}).get(plain.replace(" ", "_"))
    if meant in names:
        return f"{group} is {option}; did you mean {meant}?"
    for other in group_options:
        if other != group and plain in group_options[other] and plain != "none":
            return f"{group} is {option}, which is an option of {other}; write {other}={plain}"
    near = nearest(option, names)
    note = own_code.no_folder() if near.startswith("choose") else ""
    return f"{group} is {option}; {near}{f'; {note}' if note else ''}"


def unknown_keys(config: Mapping[str, Any], overrides: Sequence[Any]) -> list[str]:
    """Return a fault for each parsed override of a key that does not exist."""
    keys = [override.key_or_group for override in overrides if not override.is_add() and not override.is_force_add()]
    return [f"{key} matches no key; {nearest_key(config, key)}" for key in keys if not has_key(config, key)]


def replacement_fault(config: Mapping[str, Any], key: str) -> str | None:
    """Return why an override must not replace the value at `key` as a whole; None if it may, or if there is none.

    Refused are config groups, and sections with a `_target_` in or below them, which would lose their component.
    """
    section = get_path(config, key) if has_key(config, key) else None
    if not isinstance(section, Mapping):
        return None
    if key in GROUPS:
        kind = "a config group"
    elif any(path.rpartition(".")[2] == "_target_" for path, _ in leaves(section)):
        kind = "a section with a _target_"
    else:
        return None
    keys = [path for path, _ in leaves(section, key) if path != key and not path.endswith("._target_")]
    example = keys[0] if keys else f"{key}.KEY"
    return f"{key} is {kind} and cannot be replaced here; set single keys, e.g. {example}=..."


def not_set(path: str) -> str:
    """Return the fault of a key that is still `???`."""
    leave_out = f", or {path}=null to leave it out" if re.fullmatch(r"data\.merge\.[^.]+\.path", path) else ""
    return f"{path} is not set; add {path}=...{leave_out}"
