"""The view of a sweep in MLflow's UI: columns, order and charts, stored in a tag of the experiment.

Note: MLflow does not document this format; the keys are those of the UI's state in version 3.17. A UI that does not
know them shows its default table.

Every metric reaches MLflow whatever its name, but the view shows chosen ones only: the objective, which the sweep's
configuration names, and `CURVES` in publish/sweep_run.py. Add a name there to give a metric a chart.
"""

import base64
import json
import time
import uuid
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from ferhpo.addresses.secrets import redact

TAG_PREFIX = "mlflow.sharedViewState."
KIND_TAG = "mlflow.experimentKind", "custom_model_development"  # opens under "Model training", not under "GenAI"
_MAX_COLUMNS = 14


def view_state(
    sweep_id: str,
    objective: str,
    mode: str,
    params: Sequence[str],
    metrics: Sequence[str],
    second_column: str = "best_epoch",
    branches: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Return the UI's state for the runs of one sweep, sorted by `best_<objective>`, best first.

    mode: "max" or "min", of the objective
    params: the hyperparameters that vary; columns
    metrics: charts of their curves beside that of the objective; no columns, which would show the last epoch
    second_column: the metric in the column after `best_<objective>`
    branches: for each chart with parallel coordinates, its condition ("" for all trials) and its axes; by default one
        chart of `params`. MLflow draws only trials that have all axes
    """
    best = f"best_{objective}"
    params = list(params)[:_MAX_COLUMNS]
    curves = [objective, *(name for name in metrics if name not in (objective, best))]
    folded = [name for name in metrics if name.endswith("_std")]
    columns = [best, second_column, *folded]
    sections = [_section(sweep_id, "curves", "Curves"), _section(sweep_id, "section", "Parameters and result")]
    in_curves, in_parallel = (section["uuid"] for section in sections)
    charts = [_curve(sweep_id, in_curves, name) for name in curves]
    for condition, axes in (branches or {"": params}).items():
        name = f"Parameters and result{f' where {condition}' if condition else ''}"
        chart = _chart(sweep_id, "PARALLEL", in_parallel, name)
        charts.append(chart | {"selectedParams": list(axes), "selectedMetrics": [best], "showAllRuns": True})
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
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "hideEmptyCharts": True,
        "useGroupedValuesInCharts": False,
    }


def encode(name: str, state: dict[str, Any]) -> str:
    """Return the value of the experiment's tag TAG_PREFIX + sweep_id, for a view called `name`."""
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now_ms = time.time_ns() // 1_000_000
    return json.dumps({"name": name, "createdAt": now_ms, "updatedAt": now_ms, "state": f"deflate;{packed}"})


def view_url(server: str, experiment_id: str, sweep_id: str) -> str:
    """Return the URL of a sweep's view on `server`, e.g. http://127.0.0.1:5000."""
    return (
        f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
        f"?workflowType=machine_learning&viewStateShareKey={sweep_id}"
    )


def run_url(server: str, experiment_id: str, run_id: str) -> str:
    """Return the URL of the page of a run."""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def _section(sweep_id: str, part: str, name: str) -> dict[str, Any]:
    state = {"display": True, "isReordered": False, "deleted": False, "isGenerated": False}
    return {"uuid": _id(sweep_id, part), "name": name, **state}


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


def rounded(value: float) -> float:
    """Return a summary metric with five significant digits, since MLflow's table shows all digits of a metric.

    The exact value is in the study and in the curve.
    """
    return float(f"{value:.5g}")


def param_text(value: object) -> str:
    """Return the text of a hyperparameter in MLflow; floats have four significant digits, to keep columns readable.

    The exact value is in the study and in config.yaml.
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return redact(value)
    return redact(json.dumps(value, default=str))
