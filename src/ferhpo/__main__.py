"""Run the command line as `python -m ferhpo`."""

from ferhpo.cli import command

command()
