"""Run and watch the processes that a sweep depends on.

head.py      Ray's head while the sweep runs
mps.py       the service through which trials share a GPU
reaper.py    Ray's own processes after a kill
watchdog.py  stack traces of trials that hang
"""
