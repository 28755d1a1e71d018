"""The ranking of published systems on FER2013 with what this sweep reached beside it.

What a reader would get wrong: the published numbers count as test scores. A reading of the test split by `evaluate` or
`confirm` takes its place among them; the validation score, on which the sweep selected, stands below and takes none.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from ferhpo.reports.panel import Panel, write_table
from ferhpo.storage.sweep import Sweep
from ferhpo.text import plural

LITERATURE = Path(__file__).with_name("literature.yaml")
FER2013, OWN_LABELS = "ferhpo.data.fer2013.", "fer"
READINGS = "test_readings.jsonl"  # in the sweep's folder: one JSON object a reading of the test split
Row = dict[str, Any]


def panel(record: Sweep, folder: Path) -> Panel | None:
    """Make the table; None for other data than FER2013 with its own labels, and before anything was scored."""
    data = record.config["data"]
    if not str(data["_target_"]).startswith(FER2013) or data.get("labels", OWN_LABELS) != OWN_LABELS:
        return None
    read, selected = test_rows(record), validation_row(record)
    if not read and selected is None:
        return None
    literature = read_literature()
    published = [
        {"system": row["system"], "accuracy %": row["accuracy"], "scored on": "test, as far as the document tells"}
        | {"note": row.get("note", "")}
        for row in literature["rows"]
    ]
    ranked = sorted([*published, *read], key=lambda row: -row["accuracy %"])
    rows = [{"place": place, **row} for place, row in enumerate(ranked, 1)]
    rows += [{"place": "", **selected}] if selected is not None else []
    for row in rows:
        row["accuracy %"] = f"{row['accuracy %']:.2f}"
    text = f"Published systems from {literature['source']}."
    if read:
        text += f" {plural(len(read), 'reading')} of the test split by this sweep's networks stand among them."
    if selected is not None:
        text += (
            f" {selected['system'][0].upper()}{selected['system'][1:]} has {selected['accuracy %']} % on "
            f"{selected['scored on']}: it stands below and has no place, because only test scores can be compared."
        )
    return Panel("Beside the literature", text, tables=(write_table(folder / "ranking.csv", rows),))


def validation_row(record: Sweep) -> Row | None:
    """The best trial's accuracy on validation; None before a trial is complete, or where it has none."""
    best, data = record.best(), record.config["data"]
    row = {} if best is None else next((row for row in best.epochs if row["epoch"] == best.best_epoch), {})
    if best is None or "val_acc" not in row:
        return None
    split = str(data.get("split", "published"))
    where = {"published": "validation (PublicTest)", "folder": "the whole test folder", "random": "a random part"}[
        split
    ]
    if data.get("folds") is not None:
        where = "a fold of training and validation together"
    return {
        "system": f"trial {best.number} of {record.name}",
        "accuracy %": round(100 * row["val_acc"], 2),
        "scored on": f"{where}, on which it was selected",
        "note": "not a test score",
    }


def test_rows(record: Sweep) -> list[Row]:
    """Accuracy of each reading of the published test split of this sweep's own data, by one view of each image."""
    path = record.folder / READINGS
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        reading = json.loads(line)
        is_own = reading["data_digest"] == record.meta.get("data", {}).get("digest", reading["data_digest"])
        if reading["split_name"] != "published" or not is_own:
            continue
        accuracy = reading["scores"]["one_view"]["published"]["acc"]
        seeds = "" if isinstance(accuracy, float) else f", mean of {plural(accuracy['n'], 'network')}"
        rows.append(
            {
                "system": f"{reading['model']} (ferhpo {reading['verb']}{seeds})",
                "accuracy %": round(100 * (accuracy if isinstance(accuracy, float) else accuracy["mean"]), 2),
                "scored on": "test (PrivateTest)",
                "note": f"read {reading['when']}",
            }
        )
    return rows


def read_literature() -> dict[str, Any]:
    """The published ranking: `source`, and `rows` with system, accuracy in percent and perhaps a note, best first."""
    found: dict[str, Any] = yaml.safe_load(LITERATURE.read_text(encoding="utf-8"))
    return found
