"""Confirm a sweep: retrain its best trials on fresh seeds, to tell improvement from luck.

confirm.py     the verb `confirm`: start or resume a confirmation
plan.py        its configuration and its list of trials
conclude.py    ranking, test evaluation, model registration
result.py      what `confirm` returns and confirm.json holds
statistics.py  means, confidence intervals, ranks, luck
text.py        the result as sentences, Markdown and CSV
"""
