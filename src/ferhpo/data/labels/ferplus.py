"""FER+ votes as labels and soft targets, in FER2013's order of classes with contempt at the end.

Labels 0 to 6 therefore mean the same with and without FER+. Source: Barsoum et al. 2016 (arXiv 1608.01041).
"""

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.labels.emotions import EMOTIONS

CLASS_NAMES = EMOTIONS

_COLUMNS = (4, 5, 6, 1, 3, 2, 0, 7)  # of fer2013_csv.VOTE_COLUMNS, for each of CLASS_NAMES
_REJECTED = (8, 9)  # unknown, and "no face"


def targets_from_votes(
    votes: NDArray[np.int64], fer_labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Return majority labels int64 [N], vote shares float32 [N, 8] and whether each image is usable, bool [N].

    votes: int64 [N, 10] in the order of fer2013_csv.VOTE_COLUMNS
    fer_labels: the labels of FER2013, int64 [N]
    Not usable: no vote for any of the eight, or more votes for unknown or for "no face" than for the best of the eight.
    These keep their FER2013 label. A tie goes to the FER2013 label if it is among the tied, otherwise to the first of
    CLASS_NAMES among them.
    """
    emotions = votes[:, _COLUMNS]
    best = emotions.max(axis=1)
    usable = (best > 0) & (best >= votes[:, _REJECTED].max(axis=1))
    rows = np.arange(len(votes))
    labels = np.where(emotions[rows, fer_labels] == best, fer_labels, emotions.argmax(axis=1))
    labels = np.where(usable, labels, fer_labels)
    shares = emotions / np.maximum(emotions.sum(axis=1, keepdims=True), 1)
    shares[~usable] = np.eye(len(CLASS_NAMES))[labels[~usable]]
    return labels, shares.astype(np.float32), usable
