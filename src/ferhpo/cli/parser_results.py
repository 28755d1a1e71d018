"""Define the verbs about results and models, their arguments and their help texts."""

from typing import Any

from ferhpo.cli.arguments import (
    add_json,
    add_notify,
    add_output_dir,
    add_overrides,
    add_server,
    add_sweep,
    add_verb,
    path,
)
from ferhpo.cli.verbs import keys, models, results, running, serving


def add_results(verbs: Any) -> None:
    """Add runs, report, compare, ui, dashboard and sync."""
    sub = add_verb(
        verbs,
        "runs",
        results.runs,
        "Show the leaderboard of a sweep, trials of several sweeps, or all sweeps.",
        "runs",
        "runs demo",
        'runs demo --where "optim.lr < 0.01" --sort=-num_parameters',
        "runs demo demo-2 --top 5 --columns sweep,trial,value,lr --csv",
    )
    sub.add_argument(
        "names",
        nargs="*",
        metavar="SWEEP",
        help="names of sweeps, or paths of their folders (default: list all sweeps)",
    )
    add_output_dir(sub)
    sub.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help='show only trials with, e.g. "optim.lr < 0.01", "state = complete" or "value > 0.6 and epochs >= 10"; '
        "may be repeated",
    )
    sub.add_argument(
        "--sort", metavar="COLUMN", help="sort by a column, largest value first; --sort=-COLUMN: smallest first"
    )
    sub.add_argument("--columns", action="append", default=[], metavar="A,B,...", help="columns to show (default: all)")
    sub.add_argument("--top", type=int, metavar="N", help="only the first N trials")
    sub.add_argument("--csv", action="store_true", help="print the trials as CSV")
    sub.add_argument("--rows", type=int, default=20, metavar="N", help="maximum number of trials to show (default: 20)")
    add_json(sub)
    sub = add_verb(
        verbs,
        "report",
        results.report,
        "Write an HTML report of a sweep or a trial.",
        "report demo",
        "report demo --trial 3",
        "report demo --out demo.html",
        "report demo --panel my_panel",
    )
    add_sweep(sub)
    sub.add_argument("--trial", type=int, metavar="N", help="report on trial N instead of the sweep")
    sub.add_argument(
        "--out", type=path, metavar="FILE", help="file to write (default: report/index.html in the sweep's folder)"
    )
    sub.add_argument(
        "--panel",
        action="append",
        default=[],
        metavar="MODULE",
        help="Python module of yours with a function panel, shown on the page; may be repeated",
    )
    sub = add_verb(
        verbs,
        "compare",
        results.compare,
        "Compare trained networks on the same images, and the sweeps that they come from.",
        "compare demo/3 demo/7",
        "compare demo demo-2 --out comparison.html",
        "compare demo models:/ferhpo-demo@champion --json",
    )
    sub.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="two or more of SWEEP (its best trial), SWEEP/N (trial N), models:/NAME@ALIAS, models:/NAME/VERSION; and "
        "overrides that select other data, e.g. data.path=fer2013.csv",
    )
    add_output_dir(sub)
    sub.add_argument("--out", type=path, metavar="FILE", help="HTML page to write, with curves and images")
    add_json(sub)
    sub = add_verb(verbs, "ui", serving.ui, "Serve the MLflow UI.", "ui", "ui --port 5001")
    add_output_dir(sub)
    add_server(sub, 5000)
    sub = add_verb(verbs, "dashboard", serving.dashboard, "Serve Optuna's dashboard of a sweep.", "dashboard demo")
    add_sweep(sub)
    add_server(sub, 8080)
    sub = add_verb(
        verbs,
        "sync",
        results.sync,
        "Upload records that are not in MLflow yet.",
        "sync demo",
        "sync demo tracking.uri=http://user:password@host:5000",
    )
    add_sweep(sub)
    add_overrides(sub, "tracking.uri=..., e.g. to give the password, which ferhpo never stores")


def add_models(verbs: Any) -> None:
    """Add evaluate, predict, serve, confirm, ensemble, promote and rollback."""
    sub = add_verb(
        verbs,
        "evaluate",
        models.evaluate,
        "Evaluate a trial or a registered model.",
        "evaluate demo",
        "evaluate demo/7 --ten-crop",
        "evaluate models:/ferhpo-demo@champion data=fer2013 data.path=fer2013.csv",
        "evaluate demo --split test",
        "evaluate demo --calibration --robustness",
    )
    _add_model(sub)
    add_overrides(
        sub,
        "settings of the data set, or another data set, e.g. data=fer2013 data.path=fer2013.csv; tracking.uri=... of "
        "the store of models:/",
    )
    sub.add_argument("--split", default="val", choices=("val", "test"), help="split to evaluate (default: val)")
    sub.add_argument("--ten-crop", action="store_true", help="also average the predictions over ten crops per image")
    sub.add_argument(
        "--calibration",
        action="store_true",
        help="also compare confidence with accuracy, and fit a temperature to the validation images",
    )
    sub.add_argument(
        "--robustness", action="store_true", help="also score blurred, noisy, dark, turned, covered and small images"
    )
    add_output_dir(sub)
    add_json(sub)
    sub = add_verb(
        verbs,
        "predict",
        models.predict,
        "Predict the classes of images.",
        "predict demo face.png",
        "predict models:/ferhpo-demo@champion faces/ --json",
        "predict models:/fer@champion face.png security.require_signature=true",
    )
    _add_model(sub)
    sub.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="files of images, and folders whose images are searched; also tracking.uri=... of the store, and "
        "security.require_signature=true",
    )
    add_output_dir(sub)
    add_json(sub)
    sub = add_verb(
        verbs,
        "serve",
        serving.serve,
        "Serve the predictions of a model over HTTP.",
        "serve demo",
        "serve models:/ferhpo-demo@champion --port 8000",
    )
    _add_model(sub)
    add_overrides(sub, "tracking.uri=... of the store, and security.require_signature=true")
    add_output_dir(sub)
    add_server(sub, 8000)
    sub = add_verb(
        verbs,
        "confirm",
        running.confirm,
        "Retrain the best trials of a sweep with fresh seeds.",
        "confirm demo --top 5 --seeds 3",
        "confirm demo trainer.max_epochs=60 data.train_subset=null",
        "confirm demo --resume",
    )
    add_sweep(sub)
    add_overrides(sub, "settings of the retraining, of compute and of tracking, e.g. trainer.max_epochs=60")
    sub.add_argument("--top", type=int, metavar="N", help="number of complete trials to retrain (default: 5)")
    sub.add_argument("--seeds", type=int, metavar="N", help="number of fresh seeds per trial (default: 3)")
    sub.add_argument("--resume", action="store_true", help="resume an existing confirmation; never start one")
    sub.add_argument(
        "--new", action="store_true", help="start another confirmation (SWEEP-confirm-2) even if one exists"
    )
    add_notify(sub)
    add_json(sub)
    sub = add_verb(
        verbs,
        "ensemble",
        models.ensemble,
        "Make one model of several networks of a sweep, and register it.",
        "ensemble demo --top 8",
        "ensemble demo-confirm",
    )
    add_sweep(sub)
    sub.add_argument("--top", type=int, metavar="N", help="number of complete trials to choose from (default: 8)")
    sub.add_argument("--no-register", action="store_true", help="export the model only")
    add_json(sub)
    sub = add_verb(
        verbs,
        "promote",
        models.promote,
        "Move an alias of a registered model to a new version, if it passes gates.",
        "promote demo",
        "promote demo-confirm --gates strict --purpose research",
        "promote demo --alias staging --version 3",
    )
    _add_alias(sub)
    sub.add_argument("--version", type=int, metavar="N", help="version of the registered model (default: the newest)")
    sub.add_argument(
        "--gates", default="default", metavar="NAME", help="gates to pass, gates/NAME.yaml (default: default)"
    )
    sub.add_argument("--purpose", default="", metavar="TEXT", help="what the model is for; it is recorded")
    sub.add_argument(
        "--force", default="", metavar="REASON", help="move the alias in spite of the gates; it is recorded"
    )
    add_json(sub)
    sub = add_verb(
        verbs,
        "rollback",
        models.rollback,
        "Move an alias back to the version that it named before.",
        "rollback demo",
        "rollback demo --reason 'answers sad to everyone'",
    )
    _add_alias(sub)
    sub.add_argument("--reason", default="", metavar="TEXT", help="why; it is recorded")
    add_json(sub)


def add_keys(verbs: Any) -> None:
    """Add keys."""
    sub = add_verb(
        verbs,
        "keys",
        keys.keys,
        "Create the key that signs promoted models; list and trust keys.",
        "keys create",
        "keys list",
        "keys trust alice.pub",
    )
    sub.add_argument("action", choices=("create", "list", "trust"), metavar="ACTION", help="create, list or trust")
    sub.add_argument("file", type=path, nargs="?", metavar="FILE", help="public key to trust")
    sub.add_argument("--name", metavar="NAME", help="name of the key (default: own, or that of the file)")
    add_json(sub)


def _add_model(sub: Any) -> None:
    sub.add_argument(
        "model",
        metavar="MODEL",
        help="SWEEP (its best trial), SWEEP/N (trial N), models:/NAME@ALIAS or models:/NAME/VERSION",
    )


def _add_alias(sub: Any) -> None:
    add_sweep(sub)
    sub.add_argument("--alias", default="champion", help="alias to move (default: champion)")
    sub.add_argument("--model", metavar="NAME", help="name of the registered model (default: that of the sweep)")
    add_notify(sub)
