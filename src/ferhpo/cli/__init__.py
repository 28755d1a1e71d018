"""The command line.

entry.py     main() and command(): parse, call, exit status
parser.py    verbs, arguments, help texts
commands.py  one function per verb: call it, print its result
results.py   the end of a sweep, printed or as JSON
tables.py    results as terminal tables
progress.py  a running sweep on the terminal
doctor.py    the verb `doctor`
ui.py        the verb `ui`
"""

from ferhpo.cli.entry import command, main

__all__ = ["command", "main"]
