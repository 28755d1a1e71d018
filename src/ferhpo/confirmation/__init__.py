"""Retrain the best trials of a sweep on fresh seeds, and tell improvement from luck.

confirm.py     the verb `confirm`: start or resume a confirmation
plan.py        its configuration and its list of trials
conclude.py    ranks, the test evaluation, the registered network
result.py      what it returns
statistics.py  means, intervals, ranks, luck
text.py        the result in words and as CSV
"""
