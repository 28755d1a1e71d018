"""Commands that messages tell the user to type: they work word for word in the current folder."""

import shlex
from pathlib import Path

from ferhpo.addresses import trust
from ferhpo.components import own_code


def word(text: str) -> str:
    """Return a name as a word of a command; one that begins with "-" would be an option, which a stranger chose."""
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def command(verb: str, folder: Path) -> str:
    """Return the command of a verb for the sweep in `folder`."""
    return f"ferhpo {verb} {word(folder.name)}{place(folder.parent, '--output-dir ')}"


def resume_command(kind: str, folder: Path, address: object = None) -> str:
    """Return the command that resumes the sweep in `folder`, with what the user must name again.

    kind: sweep, train or confirm; address: `compute.address` of its configuration
    """
    verb = kind if kind in ("train", "confirm") else "sweep"
    text = f"ferhpo {verb} --resume {word(folder.name)}"
    text += place(folder.parent, "--output-dir " if verb == "confirm" else "output_dir=")
    if isinstance(address, str) and trust.is_trusted(trust.CLUSTER, address):
        text += f" {trust.CLUSTER}={shlex.quote(address)}"
    return text + "".join(f" --allow {module}" for module in own_code.allowed())


def place(folder: Path, option: str) -> str:
    """Return the option that names an output folder in a command; empty for the default, mlruns in the current folder.

    option: "--output-dir " or "output_dir="
    """
    folder, here = folder.resolve(), Path.cwd()
    if folder == here / "mlruns":
        return ""
    return f" {option}{shlex.quote(str(folder.relative_to(here) if folder.is_relative_to(here) else folder))}"
