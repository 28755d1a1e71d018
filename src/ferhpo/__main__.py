"""`python -m ferhpo`, where the command is not on the path."""

from ferhpo.cli import command

command()
