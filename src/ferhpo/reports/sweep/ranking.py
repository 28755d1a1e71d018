"""Compare a sweep with the ranking of published systems on FER2013.

Note: the published numbers are taken as test scores. Test scores of this sweep's networks, from `evaluate` or
`confirm`, are ranked among them; the validation score, which the sweep selected on, is listed below without a rank.
"""

from pathlib import Path
from typing import Any

import yaml

from ferhpo.components.kinds import is_data_set
from ferhpo.reports.panel import Panel, write_table
from ferhpo.storage import evaluation_log
from ferhpo.storage.sweep import Sweep
from ferhpo.text import plural

LITERATURE = Path(__file__).with_name("literature.yaml")
OWN_LABELS = "fer"
Row = dict[str, Any]


def panel(sweep: Sweep, folder: Path) -> Panel | None:
    """Make the table; None for data other than FER2013 with its original labels, and if there is no score yet."""
    data = sweep.config["data"]
    if not is_data_set(data, "fer2013") or data.get("labels", OWN_LABELS) != OWN_LABELS:
        return None
    tested, selected = test_rows(sweep), validation_row(sweep)
    if not tested and selected is None:
        return None
    literature = read_literature()
    published = [
        {"system": row["system"], "accuracy %": row["accuracy"], "scored on": "test, as far as the paper states"}
        | {"note": row.get("note", "")}
        for row in literature["rows"]
    ]
    by_accuracy = sorted([*published, *tested], key=lambda row: -row["accuracy %"])
    rows = [{"rank": rank, **row} for rank, row in enumerate(by_accuracy, 1)]
    rows += [{"rank": "", **selected}] if selected is not None else []
    for row in rows:
        row["accuracy %"] = f"{row['accuracy %']:.2f}"
    text = f"Published systems from {literature['source']}."
    if tested:
        text += f" Ranked among them: {plural(len(tested), 'test evaluation')} of this sweep's networks."
    if selected is not None:
        text += (
            f" {selected['system'][0].upper()}{selected['system'][1:]} has {selected['accuracy %']} % on "
            f"{selected['scored on']}. It is listed below without a rank, because only test scores are comparable."
        )
    return Panel("Comparison with published results", text, tables=(write_table(folder / "ranking.csv", rows),))


def validation_row(sweep: Sweep) -> Row | None:
    """Return the best trial's validation accuracy; None if no trial is complete, or if the best one has no accuracy."""
    best, data = sweep.best(), sweep.config["data"]
    row = {} if best is None else next((row for row in best.epochs if row["epoch"] == best.best_epoch), {})
    if best is None or "val_acc" not in row:
        return None
    split = str(data.get("split", "published"))
    names = {"published": "validation (PublicTest)", "folder": "the whole test folder", "random": "a random subset"}
    images = names[split]
    if data.get("folds") is not None:
        images = "a fold of the training and validation images"
    return {
        "system": f"trial {best.number} of {sweep.name}",
        "accuracy %": round(100 * row["val_acc"], 2),
        "scored on": f"{images}, on which it was selected",
        "note": "not a test score",
    }


def test_rows(sweep: Sweep) -> list[Row]:
    """Return a row for each logged evaluation on the published test split of the sweep's own data.

    The accuracy is that of all images, from one view of each.
    """
    rows = []
    for entry in evaluation_log.read_all(sweep.folder):
        is_own = entry["data_digest"] == sweep.meta.get("data", {}).get("digest", entry["data_digest"])
        if entry["split_name"] != "published" or not is_own:
            continue
        accuracy = entry["scores"]["one_view"]["all"]["acc"]
        seeds = "" if isinstance(accuracy, float) else f", mean of {plural(accuracy['n'], 'network')}"
        rows.append(
            {
                "system": f"{entry['model']} (ferhpo {entry['verb']}{seeds})",
                "accuracy %": round(100 * (accuracy if isinstance(accuracy, float) else accuracy["mean"]), 2),
                "scored on": "test (PrivateTest)",
                "note": f"evaluated {entry['when']}",
            }
        )
    return rows


def read_literature() -> dict[str, Any]:
    """Read the published ranking: `source`, and `rows` with system, accuracy in percent and optional note."""
    literature: dict[str, Any] = yaml.safe_load(LITERATURE.read_text(encoding="utf-8"))
    return literature
