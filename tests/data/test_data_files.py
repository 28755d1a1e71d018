"""conf/data and src/ferhpo/data agree, and importing the readers stays cheap."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CONF = Path(__file__).resolve().parents[2] / "conf" / "data"


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_keys_and_defaults_are_those_of_load(file: Path) -> None:
    text = file.read_text()
    assert text.startswith("# "), "`ferhpo list` shows the first line"
    keys = yaml.safe_load(text)
    module, _, function = keys.pop("_target_").rpartition(".")
    assert module in (f"ferhpo.data.{file.stem}", f"ferhpo.data.labeled_files.{file.stem}")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    assert list(keys) == list(parameters)
    for name, parameter in parameters.items():
        default = keys[name] if isinstance(keys[name], dict) else "???"  # a section that is a setting has no default
        assert keys[name] == (default if parameter.default is inspect.Parameter.empty else parameter.default)


def test_reading_data_needs_numpy_and_pillow_only() -> None:
    program = (
        "import sys, ferhpo.data.fer2013, ferhpo.data.synthetic, ferhpo.data.describe, ferhpo.data.affectnet;"
        "import ferhpo.data.merged, ferhpo.data.ckplus, ferhpo.data.sfew, ferhpo.data.image_folder;"
        "import ferhpo.data.image_table, ferhpo.data.labeled_files.rafdb;"
        "heavy = {'torch', 'ray', 'mlflow', 'hydra', 'optuna', 'pandas', 'omegaconf', 'pyarrow'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
