"""The ranking of published systems on FER2013 with this sweep's best beside it.

What a reader would get wrong: the published numbers count as test scores, and a sweep selects on validation. So our
validation score stands apart, below the ranking, and takes no place in it.
"""

from pathlib import Path
from typing import Any

import yaml

from ferhpo.record import Sweep
from ferhpo.reports.panel import Panel, write_table

LITERATURE = Path(__file__).with_name("literature.yaml")
FER2013 = "ferhpo.data.fer2013."
SCORED_ON = {
    "published": "validation (PublicTest), on which it was selected",
    "folder": "the whole test folder, on which it was selected",
    "random": "a random part, on which it was selected",
}


def panel(record: Sweep, folder: Path) -> Panel | None:
    """Make the table; None for other data than FER2013 with its seven labels, and before a trial is complete."""
    best, data = record.best(), record.config["data"]
    is_fer2013 = str(data["_target_"]).startswith(FER2013) and str(data.get("labels", "fer2013")) == "fer2013"
    if best is None or not is_fer2013:
        return None
    accuracy = next(row["val_acc"] for row in best.epochs if row["epoch"] == best.best_epoch)
    split = str(data.get("split", "published"))
    ours = {
        "place": "",
        "system": f"trial {best.number} of {record.name}",
        "accuracy %": f"{100 * accuracy:.2f}",
        "scored on": SCORED_ON.get(split, f"validation ({split} split), on which it was selected"),
        "note": "no place: not a test score",
    }
    literature = read_literature()
    ranked = [
        {
            "place": place,
            "system": row["system"],
            "accuracy %": f"{row['accuracy']:.2f}",
            "scored on": "test, as far as the document tells",
            "note": row.get("note", ""),
        }
        for place, row in enumerate(literature["rows"], 1)
    ]
    text = (
        f"{literature['source'][0].upper()}{literature['source'][1:]}. This sweep's best, trial {best.number}, has "
        f"{100 * accuracy:.2f} % on {ours['scored on']}: it stands below the ranking, because only a reading of the "
        "test split can be compared with it."
    )
    table = write_table(folder / "ranking.csv", [*ranked, ours])
    return Panel("Beside the literature", text, tables=(table,))


def read_literature() -> dict[str, Any]:
    """The published ranking: `source`, and `rows` with system, accuracy in percent and perhaps a note, best first."""
    found: dict[str, Any] = yaml.safe_load(LITERATURE.read_text(encoding="utf-8"))
    return found
