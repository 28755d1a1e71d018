"""A metric of your own: a function of the predictions on the validation split, which returns one number.

Every epoch reports it as val_<name> to the study, MLflow, leaderboard.csv and the report, and it may be the objective
(`objective.metric=val_<name>`, with `objective.mode=min` if smaller values are better).
"""

import numpy as np

from ferhpo.scoring.predict import Evaluation


def starter(found: Evaluation) -> float:
    """Return the Brier score: 0 if the probabilities are right and certain.

    found: probabilities float32 [N, classes], labels int64 [N], confusion int64 [classes, classes]
    """
    right = np.eye(found.probabilities.shape[1])[found.labels]
    return float(((found.probabilities - right) ** 2).sum(axis=1).mean())
