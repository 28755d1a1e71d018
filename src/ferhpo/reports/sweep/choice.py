"""How sure the choice of the best trial is."""

from pathlib import Path

from ferhpo.evaluation.chosen import Corrected, sentences
from ferhpo.reports.panel import Panel, write_table

MOST_ROWS = 10
_METHOD = (
    "The choice is repeated on 1,000 bootstrap samples of the validation images; each chosen trial is scored on the "
    "images outside its sample (Tsamardinos et al. 2018). No network is trained for it, and seeds are not varied: "
    "`ferhpo confirm` does that."
)


def of_corrected(found: Corrected | None, metric: str, folder: Path) -> Panel | None:
    """Return the corrected best value and how likely each trial is the best; None if nothing was chosen."""
    if found is None or found.num_trials < 2:
        return None
    rows = [
        {"trial": number, "probability of being the best, %": f"{100 * probability:.1f}"}
        for number, probability in found.likely[:MOST_ROWS]
        if probability > 0
    ]
    table = write_table(folder / "choice.csv", rows)
    return Panel("How sure the choice is", " ".join([*sentences(found, metric), _METHOD]), tables=(table,))
