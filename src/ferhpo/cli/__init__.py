"""The command line.

entry.py     main() and command(): parse arguments, call the verb, map errors to an exit status
parser.py    verbs, arguments, help texts; those about results in parser_results.py
arguments.py arguments that several verbs share
help.py      longer help texts
verbs/       one function per verb: call it, print its result
results.py   the result of a sweep, as text or JSON
tables.py    results as tables for the terminal
screen/      what the terminal shows: tables that fit it, a running sweep, links
doctor.py    the verb `doctor`
ui.py        the verb `ui`
new.py       the verb `new`
"""

from ferhpo.cli.entry import command, main

__all__ = ["command", "main"]
