"""The driver: hands trials to workers and records what they report.

ledger.py       what happens at each event of a sweep; knows nothing of Ray
ray_start.py    starts Ray in a thread; does not import it
ray_cluster.py  starts or joins a Ray cluster, computes slots
ray_tune.py     runs the trials in Ray Tune
ray_hooks.py    searcher, scheduler and callback that connect Tune to the ledger
ray_worker.py   the function that a worker runs
messages.py     messages from a worker to the driver
local.py        runs trials in this process, without Ray
signals.py      Ctrl-C and SIGTERM
budget.py       the hours, GPU-hours and trials that one start may use
processes/      what a sweep depends on: Ray's head, Ray's processes, workers that hang
retention.py    which checkpoints stay on disk
"""
