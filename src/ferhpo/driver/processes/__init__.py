"""Watch the processes that a sweep depends on.

head.py      Ray's head while the sweep runs
reaper.py    Ray's own processes after a kill
watchdog.py  stack traces of trials that hang
"""
