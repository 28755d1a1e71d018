"""Run NVIDIA's Multi-Process Service while trials share GPUs: their work then overlaps instead of taking turns.

It belongs to one user and one folder of pipes, which its clients find by an environment variable. Note: an error that
makes a GPU unusable for one trial does so for all trials on it; they are retried.
"""

import logging
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from ferhpo.config import ComputeSettings
from ferhpo.errors import first_line
from ferhpo.text import STEPS

log = logging.getLogger(STEPS)

CONTROL = "nvidia-cuda-mps-control"
VARIABLES = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
SECONDS = 15.0


class Mps:
    """Start the service if trials share GPUs of this machine and it is installed; `close` ends what was started.

    A service of the user's own, which CUDA_MPS_PIPE_DIRECTORY names, is used as it is. A service that does not start is
    no fault: trials then take turns.
    """

    def __init__(self, compute: ComputeSettings) -> None:
        self._folder: Path | None = None
        shares = compute.gpus_per_trial == "auto" or 0 < (compute.share or 0) < 1
        program = shutil.which(CONTROL)
        if not shares or compute.address is not None or program is None or os.environ.get(VARIABLES[0]):
            return
        folder = Path(tempfile.mkdtemp(prefix="ferhpo-mps-"))
        environment = os.environ | dict.fromkeys(VARIABLES, str(folder))
        try:
            subprocess.run(
                [program, "-d"], env=environment, check=True, capture_output=True, text=True, timeout=SECONDS
            )
        except (OSError, subprocess.SubprocessError) as error:
            reason = (getattr(error, "stderr", None) or str(error)).strip()
            log.info("trials that share a GPU take turns: %s does not start (%s)", CONTROL, first_line(reason))
            shutil.rmtree(folder, ignore_errors=True)
            return
        self._folder, self._program = folder, program
        os.environ.update(dict.fromkeys(VARIABLES, str(folder)))

    def close(self) -> None:
        if self._folder is None:
            return
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run([self._program], input="quit\n", capture_output=True, text=True, timeout=SECONDS, check=True)
        for name in VARIABLES:
            os.environ.pop(name, None)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None
