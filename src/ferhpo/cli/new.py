"""The verb `new`: write a starting point for own code into the user's folder, one Python file and one YAML file."""

import argparse
import importlib.util
import keyword
import re
import shlex
from importlib.resources import files
from pathlib import Path

from ferhpo.cli.screen.console import say
from ferhpo.components.own_code import FOLDER, user_folder
from ferhpo.config.files import SYNONYMS, own_files
from ferhpo.disk import disk_refused
from ferhpo.errors import ConfigError
from ferhpo.keys import nearest
from ferhpo.scoring.metrics import CHOSEN, METRICS

# kind: (folder of the YAML file, its text after the comment, overrides that use it)
KINDS = {
    "model": (
        "model",
        "# @package _global_\nmodel:\n  _target_: {target}\n  width: 16          # channels of the first block\n"
        "  num_blocks: 3\n  dropout: 0.2\nspace:\n  model:\n    width: {{choices: [8, 16, 32]}}\n"
        "    dropout: {{low: 0.0, high: 0.5}}\n",
        "model={name}",
    ),
    "data": (
        "data",
        "_target_: {target}\npath: ???          # folder with labels.csv\nimage_size: 48     # side in pixels\n",
        "data={name} data.path=FOLDER",
    ),
    "augment": (
        "augment",
        "_target_: {target}\nflip: 0.5          # every setting of conf/augment may follow\ngamma: 0.3\n",
        "augment={name}",
    ),
    "loss": ("loss", "_target_: {target}\ngamma: 2.0\n", "loss={name}"),
    "metric": ("metrics", "_target_: {target}\n", "metrics.{name}=true"),
    "sampler": ("sampler", "_target_: {target}\nscramble: true\n", "sampler={name}"),
    "scheduler": (
        "scheduler",
        "_target_: {target}\nmargin: 0.2\ngrace_period: 2\ntime_attr: ${{report_unit:}}\n",
        "scheduler={name}",
    ),
    "lr_schedule": ("lr_schedule", "_target_: {target}\npower: 1.0\n", "lr_schedule={name}"),
    "callback": ("callbacks", "_target_: {target}\nevery: 10\n", "callbacks.{name}=true"),
    "panel": ("panels", "_target_: {target}\n", "panels.{name}=true"),
    "export": ("exports", "_target_: {target}\n", "exports.{name}=true"),
}


def new(args: argparse.Namespace) -> None:
    """Write the files, and print what to do with them."""
    kind = kind_of(args.kind)
    folder = user_folder(args.config_dir) or Path(FOLDER)
    for path in write(kind, args.name, folder):
        say(f"wrote {path}")
    option = "" if folder == Path(FOLDER) else f" --config-dir {shlex.quote(str(folder))}"
    say(f"next: ferhpo check demo{option} {KINDS[kind][2].format(name=args.name)}")


def kind_of(word: str) -> str:
    """Return the kind that a word means. Raises ConfigError for an unknown one."""
    plain = word.lower().replace("-", "_")
    known = {kind: kind for kind in KINDS} | {w: group for w, group in SYNONYMS.items() if group in KINDS}
    known |= {f"{name}s": kind for name, kind in known.items()} | {"reader": "data"}
    if plain not in known:
        raise ConfigError("new", [f"unknown kind '{word}'; {nearest(plain, list(KINDS))}"])
    return known[plain]


def write(kind: str, name: str, folder: Path) -> list[Path]:
    """Write the Python file and the YAML file of a starting point, and return their paths.

    Raises ConfigError for a name that cannot be a module's or is taken, StorageError if the disk refuses.
    """
    group, settings, _ = KINDS[kind]
    module, option = folder / f"{name}.py", folder / group / f"{name}.yaml"
    if fault := _name_fault(name, (module, option)) or _taken_fault(group, name):
        raise ConfigError(f"new {kind}", [fault])
    source = files("ferhpo.starters").joinpath(f"{kind}.py").read_text(encoding="utf-8")
    is_class = "class Starter" in source
    found = name.title().replace("_", "") if is_class else name
    source = re.sub(r"\bStarter\b", found, source) if is_class else re.sub(r"\bstarter\b", name, source)
    (summary,) = re.findall(rf'(?:class|def) {found}\b(?:.|\n)*?"""(.+?)\.?(?:"""|\n| Forward)', source)[:1]
    text = settings.format(target=f"{name}.{found}", name=name)
    comment, header = f"# {summary}\n", ""
    if text.startswith("# @package"):
        header, text = text.split("\n", 1)
        header += "\n"
    try:
        option.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(source, encoding="utf-8")
        option.write_text(header + comment + text, encoding="utf-8")
    except OSError as error:
        raise disk_refused(folder, error) from None
    return [module, option]


def _taken_fault(group: str, name: str) -> str:
    """Return that ferhpo has an option or a metric of this name, which the new one would hide; empty if it has none."""
    taken = {"acc_dedup", *METRICS, *CHOSEN} if group == "metrics" else own_files(group)
    rule = f"the name is {name}, which ferhpo's own {group} has; choose another, e.g. my_{name}"
    return rule if name in taken else ""


def _name_fault(name: str, paths: tuple[Path, ...]) -> str:
    """Return why a name cannot be used; empty if it can."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        return f"the name is {name!r:.60}; it must be a Python name in lowercase, e.g. my_network"
    if taken := next((path for path in paths if path.exists()), None):
        return f"{taken} exists already; choose another name"
    if importlib.util.find_spec(name) is not None:
        return f"the name is {name}, which is also an installed Python module; choose another, e.g. my_{name}"
    return ""
