"""MLflow runs of a sweep. The driver's records go to a spool in the sweep's folder (spool.py), a thread ships them
(shipper.py, runs.py), and a store that is away costs a warning.

    settings.py  the `tracking` section
    secrets.py   passwords in addresses: hidden before anything sees them
    tracker.py   Tracker: what the driver calls
    offline.py   sync() and add_to_run(): uploads while no driver runs
    spool.py     the file of records, the note of how far they were shipped, and what both say of a sweep
    shipper.py   the thread, its batches and back-off
    runs.py      records to MLflow calls, so that repeating them changes nothing
    models.py    an exported model to a loadable one in MLflow
    store.py     reaching the store
    view.py      columns, order and charts in the UI
    registry.py  the model registry: versions, aliases

Importing this package imports no MLflow: runs.py and models.py do, and are imported by the shipper's thread.
"""

from ferhpo.tracking.offline import add_to_run, sync
from ferhpo.tracking.secrets import hide_all, redact
from ferhpo.tracking.settings import TrackingSettings
from ferhpo.tracking.spool import is_held, num_rejected, num_unshipped, run_of
from ferhpo.tracking.store import check_store
from ferhpo.tracking.tracker import Tracker
from ferhpo.tracking.view import param_text, view_url

__all__ = [
    "Tracker",
    "TrackingSettings",
    "add_to_run",
    "check_store",
    "hide_all",
    "is_held",
    "num_rejected",
    "num_unshipped",
    "param_text",
    "redact",
    "run_of",
    "sync",
    "view_url",
]
