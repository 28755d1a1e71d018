"""A trained network with all that reports look at: its trial, its data, its answers on validation."""

from dataclasses import dataclass

from torch import nn

from ferhpo.cross_validation import fold_data
from ferhpo.data.dataset import FaceData
from ferhpo.folds import KEPT_FOLD, num_folds
from ferhpo.keeping import best_checkpoint
from ferhpo.record import Sweep
from ferhpo.study import TrialRecord
from ferhpo.training.checkpoint import load_network
from ferhpo.training.evaluation import Evaluation, evaluate
from ferhpo.training.preprocess import Preprocess
from ferhpo.trial import build_network


@dataclass(frozen=True)
class Subject:
    """A trial's network at its best epoch, in evaluation mode, and its answers on the validation images."""

    record: Sweep
    trial: TrialRecord
    network: nn.Module
    data: FaceData
    preprocess: Preprocess
    answers: Evaluation


def load_subject(record: Sweep, trial: TrialRecord, data: FaceData) -> Subject:
    """Load a trial's best checkpoint and let it answer. Raises SweepError where it has none.

    data: as the sweep read it; of a cross-validated trial the kept fold answers, on the images that it did not train on
    """
    if num_folds(record.config) is not None:
        data = fold_data(data, record.config["data"], KEPT_FOLD)
    network = build_network(record.trial_config(trial), data.channels, data.num_classes, data.image_size)
    checkpoint = load_network(best_checkpoint(record, trial), network)
    preprocess = Preprocess.from_dict(checkpoint["preprocess"])
    network.eval()
    return Subject(record, trial, network, data, preprocess, evaluate(network, data, "val", preprocess))
