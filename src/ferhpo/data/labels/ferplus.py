"""FER+ votes as labels and soft targets.

Classes are those of FER2013 in its order, then contempt, so that labels 0 to 6 mean the same with and without FER+.
Source: Barsoum et al. 2016 (arXiv 1608.01041).
"""

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.labels.emotions import EMOTIONS

CLASS_NAMES = EMOTIONS

_COLUMNS = (4, 5, 6, 1, 3, 2, 0, 7)  # the index in fer2013_csv.VOTE_COLUMNS of each of CLASS_NAMES
_REJECTED = (8, 9)  # unknown and "no face"


def targets_from_votes(
    votes: NDArray[np.int64], fer_labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Return majority labels int64 [N], vote shares float32 [N, 8] and a mask of the usable images, bool [N].

    votes: int64 [N, 10] in the order of fer2013_csv.VOTE_COLUMNS
    fer_labels: the labels of FER2013, int64 [N]
    An image is not usable if none of the eight emotions has a vote, or if unknown or "no face" has more votes than each
    of them; it keeps its FER2013 label. If several emotions are tied, the FER2013 label wins if it is one of them,
    otherwise the first in the order of CLASS_NAMES.
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
