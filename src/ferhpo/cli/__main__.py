"""Run the command line as `python -m ferhpo.cli`, like `python -m ferhpo`."""

from ferhpo.cli import command

command()
