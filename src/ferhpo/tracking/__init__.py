"""MLflow tracking of sweeps.

The driver appends every record to the *spool*, a file in the sweep's folder, and never waits for the network. The
*shipper*, a thread of the driver, uploads the spool to MLflow. If the store is unreachable, the sweep continues with a
warning, the records stay in the spool, and the shipper or `ferhpo sync` uploads them later, each exactly once.

settings.py  the `tracking` section of a configuration
tracker.py   Tracker: the interface of the driver
history.py   what the spool has recorded already
spool.py     the spool
upload/      the thread that uploads, and records to MLflow calls that can be repeated safely
models.py    an exported model as an MLflow model
store.py     connecting to the store
check.py     the check of a store before a sweep
moved.py     a default store that was moved with its output folder
view.py      columns, order and charts of a sweep in MLflow's UI
registry.py  the model registry: versions, aliases

Importing this package does not import MLflow. Only upload/runs.py, upload/values.py and models.py do so at the top; the
shipper's thread imports them.
"""

from ferhpo.addresses.secrets import hide_all, redact
from ferhpo.tracking.check import check_store, refuse_lost_store
from ferhpo.tracking.settings import TrackingSettings
from ferhpo.tracking.spool import is_held
from ferhpo.tracking.store import trust_fault
from ferhpo.tracking.tracker import Tracker
from ferhpo.tracking.upload.offline import add_to_run, sync
from ferhpo.tracking.upload.rejected import rejected_text
from ferhpo.tracking.upload.shipped import num_unshipped, run_of
from ferhpo.tracking.view import param_text, view_url

__all__ = [
    "Tracker",
    "TrackingSettings",
    "add_to_run",
    "check_store",
    "hide_all",
    "is_held",
    "num_unshipped",
    "param_text",
    "redact",
    "refuse_lost_store",
    "rejected_text",
    "run_of",
    "sync",
    "trust_fault",
    "view_url",
]
