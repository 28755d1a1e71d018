"""The sweep's view in MLflow's UI: columns, order and charts, kept in a tag of the experiment.

MLflow documents none of this; the names are those of its UI's own state (3.17). A UI that does not know them shows its
usual table: nothing is lost but comfort.
"""

import base64
import json
import time
import uuid
import zlib
from collections.abc import Sequence
from typing import Any

from ferhpo.tracking.secrets import redact

TAG_PREFIX = "mlflow.sharedViewState."
_MAX_COLUMNS = 14


def view_state(
    sweep_id: str,
    objective: str,
    mode: str,
    params: Sequence[str],
    metrics: Sequence[str],
    beside: str = "best_epoch",
) -> dict[str, Any]:
    """The UI's state for one sweep: its runs, best first by `best_<objective>`, with `metrics` and the varied `params`
    as columns; a chart of the parameters against the result, the curves of the objective, and those of `metrics`."""
    best = f"best_{objective}"
    params = list(params)[:_MAX_COLUMNS]
    curves = [objective, *(name for name in metrics if name not in (objective, best))]
    columns = [best, beside, *curves[1:]]
    section = _id(sweep_id, "section")
    parallel = _chart(sweep_id, "PARALLEL", section, "Parameters and result")
    parallel |= {"selectedParams": params, "selectedMetrics": [best], "showAllRuns": True}
    return {
        "searchFilter": f"tags.`ferhpo.sweep_id` = '{sweep_id}'",
        "orderByKey": f"metrics.`{best}`",
        "orderByAsc": mode == "min",
        "selectedColumns": [
            "tags.`ferhpo.state`",
            *(f"metrics.`{name}`" for name in columns),
            *(f"params.`{name}`" for name in params),
        ],
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [parallel, *(_curve(sweep_id, section, name) for name in curves)],
        "compareRunSections": [
            {"uuid": section, "name": "Sweep", "display": True}
            | {"isReordered": False, "deleted": False, "isGenerated": False}
        ],
        "hideEmptyCharts": True,
        "useGroupedValuesInCharts": False,
    }


def encode(name: str, state: dict[str, Any]) -> str:
    """The value of the experiment's tag."""
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now_ms = time.time_ns() // 1_000_000
    return json.dumps({"name": name, "createdAt": now_ms, "updatedAt": now_ms, "state": f"deflate;{packed}"})


def view_url(server: str, experiment_id: str, sweep_id: str) -> str:
    """The address of the view on `server`, like http://127.0.0.1:5000."""
    return (
        f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
        f"?workflowType=machine_learning&viewStateShareKey={sweep_id}"
    )


def _chart(sweep_id: str, kind: str, section: str, name: str) -> dict[str, Any]:
    return {
        "uuid": _id(sweep_id, kind + name),
        "type": kind,
        "runsCountToCompare": 100,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "displayName": name,
    }


def _curve(sweep_id: str, section: str, metric: str) -> dict[str, Any]:
    return _chart(sweep_id, "LINE", section, metric) | {
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def _id(sweep_id: str, part: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{sweep_id} {part}").hex


def param_text(value: object) -> str:
    """A hyperparameter as MLflow shows it: floats with four significant digits, so that its columns can be read.
    The exact value stands in the study and in config.yaml."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return redact(value)
    return redact(json.dumps(value, default=str))
