"""One function per verb: call it with the parsed arguments, and print the result as tables or as JSON.

Heavy packages are imported inside functions: `ferhpo --help` imports none of torch, ray and mlflow.

running.py   sweep, train, confirm
planning.py  plan, check, show, list, data
results.py   runs, compare, ui, dashboard, report, sync
models.py    evaluate, ensemble, promote
system.py    doctor
notify.py    tell a webhook of the end of a sweep or of a promotion
"""
