"""`python -m ferhpo.cli`, the same as `python -m ferhpo`."""

from ferhpo.cli import command

command()
