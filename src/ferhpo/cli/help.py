"""The longer help texts of the verbs, and their format."""

import argparse
import textwrap
from typing import Any

EXIT_CODES = (
    "exit status: 0 success, 1 internal error, 2 invalid input, 3 a trial failed, 4 Ray cluster lost or promotion "
    "refused, 130 interrupted"
)
DETAILS = {
    "sweep": """Samples hyperparameters, trains a network per trial, stops unpromising trials early, records everything
        in MLflow, and registers the best model.""",
    "train": """Ignores the search space of the configuration, and does not start Ray. The training is recorded as a
        sweep with a single trial.""",
    "plan": """Shows the size of the search space and the parameters, MACs, memory, disk space and time of its networks.
        Without a search space, it shows the cost of the one network. Add space=null to plan what `ferhpo train` would
        do with the configuration of a sweep. For the time, two of the networks are trained for some seconds; the sweep
        says at its end how far that was off.""",
    "check": "Builds every component, but reads no data and trains nothing.",
    "new": """KIND is model, data, augment, loss, metric, sampler, scheduler, lr_schedule, callback, panel or export.
        Writes into ferhpo.d/ of the current folder, or into the folder of --config-dir. Both files work as they
        are, and are meant to be changed; see docs/extending.md.""",
    "data": """Shows the number of images per class and split, duplicates, conflicting labels, blank images, and overlap
        between splits.""",
    "sync": """Records stay in the sweep's folder while the MLflow store is unreachable. If the best model of a sweep
        is not registered yet, it is registered as well.""",
    "evaluate": """Scores all images, and separately those whose pixels do not occur in the training images. Every
        evaluation of the test split is recorded.""",
    "compare": """Scores all of them on the validation images of the first one, and tests whether they differ
        (McNemar's exact test). Shows which settings and versions differ. Images that one of them was trained on are
        left out.""",
    "dashboard": """Shows the study while the sweep runs and afterwards; nothing can be changed there. Needs
        ferhpo[dashboard].""",
    "ensemble": """Adds networks one after the other, each time the one that makes the mean of the probabilities best on
        the validation images; a network may be added several times. Says how much better than the best trial it is,
        corrected for the choice. Of a confirmation, the seeds of the best candidate are averaged.""",
    "confirm": """Selects the candidate with the best mean validation score, and evaluates the test split once. Run the
        same command again to continue after an interruption.""",
    "report": "The report is a single HTML file of figures and tables that can be viewed offline.",
    "promote": """Scores the version and the present champion on the same test images, and moves the alias only if every
        gate of gates/NAME.yaml is passed; otherwise it says every reason and ends with exit status 4. Programs that
        load models:/NAME@ALIAS use the new version from then on. Each move is entered in the model's audit log.""",
    "predict": """Prints for each image the likeliest class and the probability of each class. A registered model is
        verified first.""",
    "serve": """Verifies a registered model, generates its code on this machine, and starts MLflow's scoring server.
        POST images to /invocations: {"inputs": [base64 text of a PNG or JPEG file, ...]}.""",
    "keys": """A private key signs the files of each version that you promote (OpenSSF Model Signing; needs
        ferhpo[signing]). It stays in ~/.config/ferhpo/keys, or in $FERHPO_KEYS_DIR. A signed model is loaded only if
        its files are unchanged and its key is trusted.""",
    "rollback": "Programs that load models:/NAME@ALIAS use that version again. The move is entered in the audit log.",
    "doctor": "Also lists the sweeps with records that are not in MLflow yet.",
}


class VerbsFormatter(argparse.HelpFormatter):
    """Keep the name and the text of every verb on one line; argparse does not count their indentation."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._action_max_length = 13


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wrap the paragraphs of descriptions; keep the lines of examples and of the exit status."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part if part.startswith("examples:") or part == EXIT_CODES
            else textwrap.fill(" ".join(part.split()), width)
            for part in text.split("\n\n")
        )  # fmt: skip
