"""Upload a spool to MLflow.

shipper.py   the thread that uploads: batches, retries, what is set aside
runs.py      records to MLflow calls that can be repeated safely
stored.py    which runs the store has
keys.py      by which keys runs are known here
values.py    metrics, parameters and tags, in as few calls as possible
offline.py   sync() and add_to_run(): uploads while no driver runs
files.py     which files may be uploaded
places.py    where a store may let them be written
shipped.py   spool.shipped.json: how far the spool was uploaded
rejected.py  rejected.jsonl: what MLflow does not have, and why
"""
