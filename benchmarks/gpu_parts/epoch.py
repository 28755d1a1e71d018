"""Where the time of an epoch goes: three epochs of the small ResNet, through `ferhpo train`."""

import tempfile
import time
from collections.abc import Callable
from typing import Any

import ferhpo
from ferhpo.driver.ledger import Ledger
from ferhpo.training import epoch_end
from gpu_parts.common import NUM_FER2013, SMALL_RESNET, Rows, noise, use_data, wait_for


def run(rows: Rows) -> None:
    num_train, num_val, batch_size = (64, 32, 16) if rows.small else (NUM_FER2013, 3_589, 128)
    spent: dict[str, list[float]] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            wait_for(rows.device)
            start = time.perf_counter()
            result = function(*args, **options)
            wait_for(rows.device)
            spent.setdefault(name, []).append(time.perf_counter() - start)
            return result

        return call

    use_data("train", noise(num_train, num_val))
    parts: Any = epoch_end
    parts.evaluate = timed("validation_s", parts.evaluate)
    parts.save_checkpoints = timed("checkpoint_s", parts.save_checkpoints)
    Ledger.report = timed("report_s", Ledger.report)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        fixed = ["space=null", "optim=sgd", "augment=standard", "tracking=none", f"output_dir={folder}"]
        sizes = ["trainer.max_epochs=3", f"trainer.batch_size={batch_size}"]
        ferhpo.train("demo", [*SMALL_RESNET, *fixed, *sizes])
        (trial,) = ferhpo.load_sweep("demo", folder).trials()
    if not trial.epochs:
        raise RuntimeError(f"{trial.state}: {trial.reason}")
    num_images = num_train // batch_size * batch_size
    for number, metrics in enumerate(trial.epochs):
        train = num_images / metrics["images_per_second"]
        row = {"epoch": number + 1, "train_s": train, **{name: seconds[number] for name, seconds in spent.items()}}
        rows.write(**row, step_ms=1000 * train * batch_size / num_images)
