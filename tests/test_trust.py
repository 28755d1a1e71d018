"""What a sweep file, the folder of a sweep and a store may not decide: stores, clusters, and where files are written."""

import json
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
import yaml

from ferhpo import cli
from ferhpo.addresses import secrets, trust
from ferhpo.config import validate
from ferhpo.config.compose import compose
from ferhpo.config.input.final import final_faults
from ferhpo.config.input.layers import Layer, environment_faults, nested, trust_addresses
from ferhpo.data.io import cache
from ferhpo.errors import ConfigError, FerhpoError, TrackingError
from ferhpo.storage.sweep import load_sweep
from ferhpo.tracking import TrackingSettings, check_store, sync
from ferhpo.tracking.store import connect
from ferhpo.tracking.upload.places import fault_of_owner, fault_of_place
from tests.reports.made_sweeps import made_sweep
from tests.test_tracking_set_aside import record, rejected

RUN, MODEL = "0123456789abcdef" * 2, "m-" + "0123456789abcdef" * 2
DEMO = {"defaults": ["demo", "_self_"]}
STORE = "sqlite:////srv/mlflow.db"
POSTGRES, CLUSTER = "postgresql://db.example/mlflow", "10.0.0.9:6379"


def faults_of(name, overrides=(), config_dir=None):
    try:
        validate.check_composed(compose(str(name), overrides, config_dir), for_sweep=True)
    except ConfigError as error:
        return error.faults
    return []


def sweep_file(path, **sections):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**DEMO, **sections}))
    return path


@pytest.mark.parametrize(
    ("sections", "key", "value"),
    [
        ({"compute": {"address": CLUSTER}}, "compute.address", CLUSTER),
        ({"compute": {"address": "ray://evil.example:10001"}}, "compute.address", "ray://evil.example:10001"),
        ({"host": CLUSTER, "compute": {"address": "${host}"}}, "compute.address", CLUSTER),
        ({"tracking": {"uri": POSTGRES}}, "tracking.uri", POSTGRES),
        ({"tracking": {"uri": "mssql+pyodbc:///?odbc_connect=x"}}, "tracking.uri", "mssql+pyodbc:///?odbc_connect=***"),
        ({"tracking": {"uri": "sqlite:////opt/other/app.db"}}, "tracking.uri", "sqlite:////opt/other/app.db"),
    ],
    ids=str,
)
def test_a_sweep_file_chooses_no_cluster_and_no_database(tmp_path, monkeypatch, sections, key, value):
    monkeypatch.chdir(tmp_path)
    faults = faults_of(sweep_file(tmp_path / "downloaded" / "mine.yaml", **sections))
    (fault,) = [fault for fault in faults if fault.startswith(key)]
    assert fault.startswith(f"{key} is {value} in a file; ")
    assert f"add {key}=" in fault
    assert f"set {trust.VARIABLES[key]} to it" in fault


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"override /tracking": "evil.yaml"}, "evil.yaml"),
        ({"override tracking": "evil.yaml"}, "evil.yaml"),
        ({"override /tracking@_global_.sampler.p": "evil"}, "_global_"),
        ({"override /tracking": "evil"}, "oc.env"),
        ("../../victim/secrets", "victim"),
    ],
)
def test_no_file_is_read_that_was_not_checked(tmp_path, monkeypatch, entry, message):
    """Hydra takes a slash before a group, a suffix after a name, and a package after both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    folder = tmp_path / "sweeps"
    (folder / "tracking").mkdir(parents=True)
    evil = "defaults: [mlflow, _self_]\nexperiment: 'exp-${oc.env: AWS_SECRET_ACCESS_KEY}'\n"
    for name in ("evil.yaml", "evil.yaml.yaml"):
        (folder / "tracking" / name).write_text(evil)
    sweep_file(folder / "mine.yaml", defaults=["demo", entry, "_self_"])
    faults = faults_of("mine")
    assert any(message in fault for fault in faults), faults
    assert "hunter2" not in str(faults)


@pytest.mark.parametrize("mark", ["\ufeff", "\ufeff\ufeff", "\u2028", "\x85"])
@pytest.mark.parametrize(
    "hidden",
    [
        "tracking: {uri: 'http://127.0.0.2:8098', experiment: 'exp-${oc.env:AWS_SECRET_ACCESS_KEY}'}",
        "compute: {address: '127.0.0.2:8097'}",
        "output_dir: /srv/runs",
    ],
)
def test_a_file_hides_no_key_behind_an_invisible_character(tmp_path, monkeypatch, mark, hidden):
    """Parsers of YAML do not agree where a comment begins."""
    monkeypatch.chdir(tmp_path)
    text = f"{{defaults: [config, _self_], num_trials: 1, callbacks: {{\n{mark}# }}, {hidden}, panels: {{\n}}}}\n"
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    assert any("invisible character" in fault for fault in faults_of(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    "package", ["[tracking]", "tracking[]", "[]", "_global_.tracking", "a b", "_group_", "tracking."]
)
def test_the_package_of_a_file_is_a_plain_key(tmp_path, monkeypatch, package):
    """Hydra takes [tracking] for tracking, which no check would see."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sweeps"
    folder.mkdir()
    (folder / "base.yaml").write_text(f"# @package {package}\ndefaults: [_self_]\nuri: 'http://127.0.0.2:8098'\n")
    sweep_file(folder / "a.yaml", defaults=["config", "base", "_self_"])
    assert any("its header is " in fault for fault in faults_of("a"))


def test_a_configuration_that_its_files_do_not_explain_is_refused(tmp_path, monkeypatch):
    """Whatever difference is found next between what is checked and what Hydra merges."""
    from ferhpo.config.input import reader

    monkeypatch.chdir(tmp_path)
    file = sweep_file(tmp_path / "sweeps" / "a.yaml", num_trials=3)
    assert faults_of(file) == []
    monkeypatch.setattr(reader, "_read", lambda file, read=reader._read: _with_key(*read(file)))
    assert any("is not what the files say" in fault for fault in faults_of(file))


def _with_key(content, header):
    """What only Hydra reads: each reading of the sweep's file is another."""
    if isinstance(content, dict) and content.get("num_trials") == 3:
        _with_key.count = getattr(_with_key, "count", 0) + 1
        content = {**content, "num_trials": 3 + _with_key.count}
    return content, header


@pytest.mark.parametrize(
    "text",
    [
        '"": {tracking: {uri: "http://127.0.0.2:8098/~a"}}', '"": "${callbacks}"', '" tracking": {uri: x}', "tracking.uri: x",
        'data: {"": 3}', "data: {a.b: 3}", 'data: {"a[0]": 3}', "metrics: {1.5: 2}", "? [1]\n: 3", "true: 3", "null: 4",
        'callbacks: [{"": 2}]', "callbacks: {a: [[{b.c: 2}]]}",
    ],
)  # fmt: skip
def test_a_key_of_a_file_means_itself_only(tmp_path, text):
    """What a dotted path cannot name, it would name as another key."""
    (tmp_path / "a.yaml").write_text(f"defaults: [config]\n{text}\n")
    (fault,) = faults_of(tmp_path / "a.yaml")
    assert "a key must " in fault


def test_a_key_that_no_check_sees_makes_no_address_the_users(tmp_path, monkeypatch):
    """The default configuration sets tracking.uri last, and another key is copied there."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(Path(validate.__file__).parents[3] / "conf", tmp_path / "conf")
    with (tmp_path / "conf" / "config.yaml").open("a") as file:
        file.write('"": "${callbacks}"\ncallbacks: {tracking: {uri: "http://127.0.0.2:8098/~a"}}\n')
    with pytest.raises(ConfigError):
        compose(None)
    assert not trust.is_trusted(trust.STORE, "http://127.0.0.2:8098/~a")


def test_trust_is_in_what_was_written_and_not_in_its_key():
    layer = Layer("override", "override", {"tracking": {"uri": "http://mine"}}, "tracking.uri")
    trust_addresses([layer], {"tracking": {"uri": "http://another"}, "compute": {"address": None}})
    assert not trust.is_trusted(trust.STORE, "http://another")
    trust_addresses([layer], {"tracking": {"uri": "http://mine"}, "compute": {"address": None}})
    assert trust.is_trusted(trust.STORE, "http://mine")


@pytest.mark.parametrize(
    "reference", ["${data.merge.c}", "${data.merge[c]}", "${data}", "x${data.merge}", "${callbacks.l}"]
)
def test_a_file_copies_no_section(tmp_path, monkeypatch, reference):
    """A later file would merge into the copy, and empty the section that the checks see."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sweeps" / "data"
    folder.mkdir(parents=True)
    private = {"_target_": "ferhpo.data.image_folder.load", "path": "../private", "cache_dir": "../evil"}
    first = {"_target_": "ferhpo.data.merged.load", "main": reference, "merge": {"c": private}}
    (folder / "one.yaml").write_text(yaml.safe_dump(first))
    second = {
        "defaults": ["one", "_self_"],
        "main": {"image_size": 48},
        "merge": {"c": {"path": None, "cache_dir": None}},
    }
    (folder / "two.yaml").write_text(yaml.safe_dump(second))
    callbacks = {"l": [private]}
    sweep_file(
        tmp_path / "sweeps" / "a.yaml", defaults=["demo", {"override data": "two"}, "_self_"], callbacks=callbacks
    )
    assert any("is a reference to the section" in fault for fault in faults_of("a")), faults_of("a")


@pytest.mark.parametrize(
    ("key", "value", "is_fault"),
    [
        ("output_dir", "/home/me/.vim", True), ("output_dir", "results", False), ("data.cache_dir", "../evil", True),
        ("data.path", "../private", True), ("data.merge.0.path", "../private", True), ("model.weights", "a.pt", True),
        ("model.weights", "none", False), ("data.path", "mine", False), ("data.cache_dir", "my-cache", False),
        ("data.path", None, False), ("compute.temp_dir", "x", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["config", "options"])
def test_what_the_user_decides_is_what_the_user_wrote(tmp_path, monkeypatch, key, value, is_fault, place):
    """However the value came to its key: no layer of these says how."""
    monkeypatch.chdir(tmp_path)
    users = Layer("override", "override", {"data": {"path": "mine", "cache_dir": "my-cache"}})
    strangers = Layer("a", "sweeps/a.yaml", {"x": {"path": "../private", "cache_dir": "../evil"}}, is_trusted=False)
    config = nested(key, value)
    if ".0." in key:
        config = {"data": {"merge": [{"path": value}]}}
    tracking = {"tracking": {"uri": "http://127.0.0.2:8098"}}
    if place == "config" or key == "output_dir":
        faults = list(final_faults({**config, **tracking}, {}, [users, strangers]))
    else:
        (group,) = config
        faults = list(final_faults(tracking, {group: {"one": config[group]}}, [users, strangers]))
    assert bool(faults) == is_fault, faults


def test_a_file_refers_to_single_values(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = {"max_epochs": "${num_trials}"}
    sweep_file(tmp_path / "sweeps" / "a.yaml", num_trials=2, trainer=trainer, seed="${trainer.max_epochs}")
    assert faults_of("a") == []
    sweep_file(tmp_path / "sweeps" / "a.yaml", trainer={"max_epochs": "${..num_trials}"})
    assert any("is neither ${key} nor" in fault or "has a reference" in fault for fault in faults_of("a"))


def test_hydra_composes_what_was_checked(tmp_path, monkeypatch):
    """Not what its own parser finds in the file."""
    from hydra._internal.core_plugins import file_config_source

    compose("demo")  # what Hydra keeps in the process
    monkeypatch.setattr(file_config_source, "OmegaConf", None)
    file = sweep_file(tmp_path / "a.yaml", optim={"weight_decay": 1e-5})
    assert compose(str(file)).config["optim"]["weight_decay"] == 1e-5
    file.write_text("defaults: [demo, _self_]\noptim: {weight_decay: 1e-5}\nnum_trials: 2\nnum_trials: 3\n")
    assert any("found duplicate key num_trials" in fault for fault in faults_of(file))


def test_a_file_of_a_group_builds_on_its_own_folder_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sweeps"
    (folder / "tracking" / "data").mkdir(parents=True)
    (folder / "tracking" / "data" / "synthetic.yaml").write_text("{}")
    (folder / "tracking" / "mine.yaml").write_text("defaults: [mlflow, {data: synthetic}, _self_]\n")
    sweep_file(folder / "mine.yaml", defaults=["demo", {"override tracking": "mine"}, "_self_"])
    assert any("own folder only" in fault for fault in faults_of("mine"))


@pytest.mark.parametrize("hidden", [{"path": "private"}, {"cache_dir": "evil"}])
def test_a_list_hides_no_key(tmp_path, monkeypatch, hidden):
    monkeypatch.chdir(tmp_path)
    sections = {"sampler": {"p": [[hidden], hidden]}, "tracking": {"uri": "http://127.0.0.2:5000"}}
    faults = faults_of(sweep_file(tmp_path / "mine.yaml", **sections))
    assert sum(next(iter(hidden)) in fault for fault in faults) >= 2, faults


@pytest.mark.parametrize(("key", "value"), [("compute.address", CLUSTER), ("tracking.uri", POSTGRES)])
def test_the_user_names_clusters_and_databases(tmp_path, monkeypatch, key, value):
    """On the command line, in the environment, and in the configuration folder."""
    monkeypatch.chdir(tmp_path)
    section, name = key.split(".")
    file = sweep_file(tmp_path / "mine.yaml", **{section: {name: value}})
    assert faults_of(file), "in a file it is refused"
    assert faults_of(file, [f"{key}={value}"]) == []
    trust.forget()
    with monkeypatch.context() as patch:
        patch.setenv(trust.VARIABLES[key], value)
        assert faults_of(file) == []
    assert faults_of(file), "trust ends with what gave it"
    sweep_file(tmp_path / "ferhpo.d" / "ours.yaml", **{section: {name: value}})
    assert faults_of("ours") == []
    trust.forget()
    sweep_file(tmp_path / "folder" / "theirs.yaml", **{section: {name: value}})
    assert faults_of("theirs", config_dir=tmp_path / "folder") == []


def test_what_a_sweep_file_puts_over_the_users_folder_is_not_the_users(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ferhpo.d" / "compute").mkdir(parents=True)
    option = {"defaults": ["local", "_self_"], "address": CLUSTER}
    (tmp_path / "ferhpo.d" / "compute" / "ours.yaml").write_text(yaml.safe_dump(option))
    override = {"override /compute": "ours"}
    file = sweep_file(tmp_path / "a.yaml", defaults=["demo", override, "_self_"])
    assert faults_of(file) == [], "the sweep chooses an option of the user's"
    trust.forget()
    other = "10.6.6.6:6379"
    file = sweep_file(tmp_path / "b.yaml", defaults=["demo", override, "_self_"], compute={"address": other})
    (fault,) = faults_of(file)
    assert other in fault
    (tmp_path / "compute").mkdir()
    (tmp_path / "compute" / "beside.yaml").write_text(yaml.safe_dump(option))
    file = sweep_file(tmp_path / "c.yaml", defaults=["demo", {"override /compute": "beside"}, "_self_"])
    assert faults_of(file), "an option beside the sweep file comes from where the sweep file comes from"


@pytest.mark.parametrize("variable", trust.CREDENTIALS)
def test_what_the_environment_has_for_one_server_is_not_sent_to_another(tmp_path, monkeypatch, variable):
    monkeypatch.chdir(tmp_path)
    file = sweep_file(tmp_path / "mine.yaml", tracking={"uri": "https://mlflow.example"})
    assert faults_of(file) == [], "a server may be named in a file"
    monkeypatch.setenv(variable, "secret-7")
    (fault,) = faults_of(file)
    assert f"{variable} would be sent to it" in fault
    assert "secret-7" not in fault
    near = sweep_file(tmp_path / "near.yaml", tracking={"uri": "http://127.0.0.1:5000"})
    assert f"{variable} would be sent to it" in "".join(faults_of(near)), "whoever started a server there"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example/")
    assert faults_of(file) == [], "the server that they are for"


def test_a_password_on_the_command_line_makes_the_address_the_users(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = "postgresql://me:secret-7@db.example/mlflow"
    assert faults_of("demo", [f"tracking.uri={uri}"]) == []
    assert check_fault(TrackingSettings(tmp_path, "postgresql://***@db.example/mlflow")) is None


def check_fault(settings):
    """The fault of trust that a store has, None if it has another one or none."""
    try:
        connect(settings, 1)
    except TrackingError as error:
        return str(error) if " in a file; " in str(error) else None
    except Exception:  # nothing listens there
        return None
    return None


@pytest.mark.parametrize("uri", [POSTGRES, "sqlite:////opt/other/app.db"])
def test_every_way_to_a_store_asks(tmp_path, uri):
    settings = TrackingSettings(tmp_path, uri, required=False)
    for way in (connect, check_store):
        with pytest.raises(TrackingError, match=r"in a file; .*; if you trust it, add tracking\.uri="):
            way(settings)


def test_a_database_of_another_program_is_left_alone(tmp_path, capsys):
    """A copied sweep names it; sync would make MLflow's tables in it, and a lock beside it."""
    folder = tmp_path / "mine" / "other"
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "app.db")) as database:
        database.execute("CREATE TABLE bookmarks (a)")
        database.commit()
    before = (folder / "app.db").read_bytes()
    sweep = made_sweep(tmp_path / "runs", ["COMPLETE"])
    edit(sweep, tracking={"uri": f"sqlite:///{folder / 'app.db'}"})
    for verb in (["sync"], ["promote"]):
        assert cli.main([*verb, sweep.name, "--output-dir", str(tmp_path / "runs")]) != 0, verb
    assert "it is not a database of MLflow yet" in capsys.readouterr().err
    assert (folder / "app.db").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["app.db"]


def edit(sweep, **sections):
    path = sweep.folder / "sweep.json"
    meta = json.loads(path.read_text())
    for name, values in sections.items():
        meta["composed"]["config"][name].update(values)
    path.write_text(json.dumps(meta))


def test_a_copied_sweep_joins_no_cluster(tmp_path, capsys):
    sweep = made_sweep(tmp_path / "runs", ["COMPLETE"])
    edit(sweep, compute={"address": CLUSTER})
    where = f"output_dir={tmp_path / 'runs'}"
    assert cli.main(["sweep", sweep.name, "--resume", where]) == 2
    assert f"compute.address is {CLUSTER} in a file" in capsys.readouterr().err


def test_a_store_of_ones_own_is_used_without_being_named_again(tmp_path, empty_store):
    """A database that MLflow made, wherever it is, and the default one in the output folder."""
    shutil.copy(empty_store, tmp_path / "team.db")
    assert check_fault(TrackingSettings(tmp_path / "runs", f"sqlite:///{tmp_path / 'team.db'}")) is None
    assert check_fault(TrackingSettings(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}")) is None
    assert (tmp_path / "mlflow.db").exists()


def test_a_copied_sweep_brings_no_cache(tmp_path, monkeypatch):
    """What is in a cache replaces the user's images and labels."""
    sweep = made_sweep(tmp_path / "runs", ["COMPLETE"])
    for name in ("own", "theirs"):
        cache.cached("key", tmp_path / name, lambda: cache.Entry({}, {}))
    monkeypatch.setenv("FERHPO_CACHE_DIR", str(tmp_path / "own"))
    edit(sweep, data={"cache_dir": str(tmp_path / "own"), "parts": [{"cache_dir": str(tmp_path / "theirs")}]})
    found = load_sweep(sweep.folder).config["data"]
    assert found["cache_dir"] == str(tmp_path / "own")
    assert found["parts"] == [{"cache_dir": None}]


def test_a_sweep_file_brings_no_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = sweep_file(tmp_path / "a.yaml", data={"cache_dir": "cache"})
    (fault,) = faults_of(file)
    assert fault.startswith("data.cache_dir is 'cache' in ")
    assert "add data.cache_dir=... to the command line, or set FERHPO_CACHE_DIR to it" in fault
    assert not [fault for fault in faults_of(file, ["data.cache_dir=cache"]) if "command line" in fault]


ACCEPTED = [
    (f"/srv/artifacts/1/{RUN}/artifacts", RUN),
    (f"file:///srv/artifacts/1/{RUN}/artifacts", RUN),
    (f"file://localhost/srv/a%20b/1/{RUN}/artifacts", RUN),
    (f"/srv/with space/models/{MODEL}/artifacts", MODEL),
]
OF_A_SERVER = [f"mlflow-artifacts:/1/{RUN}/artifacts", f"https://mlflow.example/api/{RUN}/artifacts"]
ELSEWHERE = [
    f"s3://bucket/1/{RUN}/artifacts",
    f"abfss://files@evil.dfs.core.windows.net/1/{RUN}/artifacts",
    f"ftp://evil.example/{RUN}/artifacts",
    f"http://127.0.0.2:8099/{RUN}/artifacts",
    f"mlflow-artifacts://evil.example/1/{RUN}/artifacts",
    f"/home/me/1/{RUN}/artifacts",
]
REFUSED = [
    ("ferhpo.d", RUN),
    ("./ferhpo.d/artifacts", "ferhpo.d"),
    ("file:///home/me/ferhpo.d", RUN),
    (f"/srv/{RUN}/artifacts/../../../home/me", RUN),
    (f"/srv/{RUN}/artifacts/%2e%2e/%2e%2e/home", RUN),
    (f"/srv/%2e%2e/home/{RUN}/artifacts", RUN),
    (f"/srv/{MODEL}/artifacts", RUN),
    (f"file://evil.example/srv/{RUN}/artifacts", RUN),
    (f"FILE:///home/me/{RUN}", RUN),
    (f"/home/me#/{RUN}/artifacts/x", RUN),
    (f"runs:/{RUN}/artifacts", RUN),
    ("models:/evil/1", MODEL),
]


@pytest.mark.parametrize(("location", "owner"), ACCEPTED)
def test_places_that_mlflow_chooses(location, owner):
    assert fault_of_place(location, owner, STORE) == ""


@pytest.mark.parametrize("location", [*OF_A_SERVER, *ELSEWHERE])
@pytest.mark.parametrize("done", ["written", "read"])
def test_a_store_that_the_user_did_not_name_names_no_place_elsewhere(location, done):
    """Neither a SQLite file in the output folder, nor a server that a file names."""
    server = "https://ann:a@mlflow.example"
    assert (fault_of_place(location, RUN, server, done) == "") == (location in OF_A_SERVER)
    assert f"nothing is {done} there; if you trust the store, add " in fault_of_place(location, RUN, STORE, done)
    for store in (STORE, server):
        trust.trust_address("tracking.uri", store)
        assert fault_of_place(location, RUN, store, done) == "", "the user named it"


def test_links_that_lead_nowhere_are_no_place(tmp_path):
    (tmp_path / RUN).symlink_to(RUN)
    assert "nothing is written there" in fault_of_place(
        str(tmp_path / RUN / "artifacts"), RUN, f"sqlite:///{tmp_path}/m.db"
    )


def test_an_experiment_elsewhere_is_refused_before_a_sweep(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    settings = TrackingSettings(output_dir=tmp_path)
    connect(settings).create_experiment("ferhpo", "http://127.0.0.2:8099/mlflow-artifacts/artifacts/loot")
    with pytest.raises(TrackingError, match=r"loot, which is not in the folder of this store .* nothing is written"):
        check_store(settings)


@pytest.mark.parametrize(("location", "owner"), REFUSED)
def test_places_that_mlflow_would_not_choose(location, owner):
    fault = fault_of_place(location, owner, STORE)
    assert location in fault or repr(location) in fault


@pytest.mark.parametrize("place", ["ferhpo.d", "../elsewhere", "file:{}/ferhpo.d"])
def test_a_store_chooses_no_folder_on_this_machine(tmp_path, monkeypatch, empty_store, place):
    """A copied store, whose run says that its artifacts are in a folder of Python files."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    settings = TrackingSettings(output_dir=tmp_path)
    folder = tmp_path / "demo"
    tracker = record(folder, settings)
    tracker.start()
    assert tracker.flush(60) == 0
    tracker.close(5)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("UPDATE runs SET artifact_uri = ?", (place.format(work),))
        database.commit()
    (folder / "code").mkdir()
    (folder / "code" / "evil.py").write_text("raise SystemExit('code has run')")
    with_files = record(folder, settings)
    with_files.log_artifact(0, folder / "code" / "evil.py", "")
    with_files.log_text(0, "raise SystemExit", "evil2.py")
    with_files.close(0)
    sync(folder, settings)
    assert list(work.iterdir()) == []
    assert not (tmp_path / "elsewhere").exists()
    reasons = [entry["reason"] for entry in rejected(folder)]
    assert len(reasons) == 2
    assert all("which is not a folder that MLflow makes" in reason for reason in reasons)


def test_joining_asks_too():
    from ferhpo.config import ComputeSettings
    from ferhpo.driver.ray_cluster import start_ray

    with pytest.raises(FerhpoError, match=r"compute\.address is .* in a file; a Ray cluster can run code"):
        start_ray(ComputeSettings(address=CLUSTER))


def test_files_of_ferhpo_name_nothing_that_they_would_be_asked_about():
    for path in Path(__file__).parents[1].glob("conf/t*/*.yaml"):
        section = yaml.safe_load(path.read_text()) or {}
        assert section.get("uri") in (None, "none"), path


def test_the_command_to_resume_works_word_for_word(tmp_path, monkeypatch):
    """It names again what a new process does not know: the folder, the cluster and the modules that were allowed."""
    from ferhpo.components import own_code

    monkeypatch.chdir(tmp_path)
    sweep = made_sweep(tmp_path / "mlruns", ["COMPLETE"])
    assert load_sweep(sweep.folder).resume_command == "ferhpo sweep --resume made"
    assert load_sweep(sweep.folder).command("sync") == "ferhpo sync made"
    edit(sweep, compute={"address": CLUSTER})
    trust.trust_address("compute.address", CLUSTER)
    own_code.allow(["my_networks"])
    (tmp_path / "mlruns").rename(tmp_path / "my runs")
    moved = load_sweep("made", "my runs")
    assert moved.resume_command == (
        f"ferhpo sweep --resume made output_dir='my runs' compute.address={CLUSTER} --allow my_networks"
    )
    assert moved.command("sync") == "ferhpo sync made --output-dir 'my runs'"
    trust.forget()
    assert CLUSTER not in moved.resume_command, "a file's cluster is not recommended"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("${oc.env:AWS_SECRET_ACCESS_KEY}", "the value of AWS_SECRET_ACCESS_KEY may be a secret"),
        ("x-${oc.env:GITHUB_TOKEN,none}", "the value of GITHUB_TOKEN may be a secret"),
        ("${oc.env:DB_PASS}", "the value of DB_PASS may be a secret"),
        ("${oc.env:AZURE_STORAGE_CONNECTION_STRING}", "the value of AZURE_STORAGE_CONNECTION_STRING may be a secret"),
        ("${oc.env:SLURM_JWT}", "the value of SLURM_JWT may be a secret"),
        ("${oc.env:HOME_}", "the value of HOME_ may be a secret"),
        ("${oc.env:${objective.metric}}", "has a reference that is neither"),
        ("${oc.decode:'${seed}'}", "has a reference that is neither"),
        ("${oc.create:[1]}", "has a reference that is neither"),
        ("${oc.${part}:AWS_SECRET_ACCESS_KEY}", "has a reference that is neither"),
        ("${\toc.env:AWS_SECRET_ACCESS_KEY}", "has a reference that is neither"),
        ("${oc.env: AWS_SECRET_ACCESS_KEY}", "has a reference that is neither"),
        ("${oc.env:'AWS_SECRET_ACCESS_KEY'}", "has a reference that is neither"),
    ],
)
def test_a_sweep_file_takes_no_secret_from_the_environment(tmp_path, monkeypatch, text, rule):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("val_acc", "hush")
    file = sweep_file(tmp_path / "a" / "mine.yaml", tracking={"experiment": text}, part="env")
    faults = faults_of(file)
    assert any(fault.startswith("tracking.experiment in a/mine.yaml has ") and rule in fault for fault in faults), (
        faults
    )
    assert "hush" not in "".join(faults)


def test_the_environment_is_not_sent_to_a_server_that_a_file_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FERHPO_STUDENT", "ann")
    reads = {"experiment": "of-${oc.env:FERHPO_STUDENT}"}
    assert faults_of(sweep_file(tmp_path / "a.yaml", tracking=reads)) == [], "into the store of this folder"
    near = {**reads, "uri": "http://127.0.0.1:5000"}
    assert faults_of(sweep_file(tmp_path / "near.yaml", tracking=near)), "whoever started a server there"
    both = {**reads, "uri": "https://mlflow.example"}
    (fault,) = faults_of(sweep_file(tmp_path / "b.yaml", tracking=both))
    assert "the value of FERHPO_STUDENT would be sent to https://mlflow.example, which a file names too" in fault
    assert faults_of(tmp_path / "b.yaml", ["tracking.uri=https://mlflow.example"]) == []
    trust.forget()
    sweep_file(tmp_path / "ferhpo.d" / "ours.yaml", tracking={**both, "experiment": "${oc.env:FERHPO_STUDENT}"})
    assert faults_of("ours") == []


def test_names_of_data_are_not_sent_to_a_server_that_the_same_file_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    section = {"defaults": ["vulpe2021", "_self_"], "data": {"path": "pictures"}}
    file = sweep_file(tmp_path / "a.yaml", **section, tracking={"uri": "https://mlflow.example"})
    (fault,) = faults_of(file)
    assert "data.path in tmp" not in fault
    assert "what is there would be sent to https://mlflow.example, which a file names too; add data.path=..." in fault
    assert faults_of(file, ["data.path=pictures"]) == []
    assert faults_of(file, ["tracking.uri=https://mlflow.example"]) == []
    trust.forget()
    assert faults_of(sweep_file(tmp_path / "b.yaml", **section)) == [], "into the store of this folder"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.root", "private"), ("data.path", "private.csv"), ("data.clean", "private.csv"),
        ("model.weights", "private.pth"), ("model.vocabulary_file", "private.txt"),
        ("callbacks.log.root", "private"), ("data.ferplus_path", "private.csv"),
    ],
)  # fmt: skip
def test_no_path_of_a_file_is_read_for_a_server_that_the_same_file_names(key, value):
    """Every setting that names a file or folder, in whatever section it is."""
    layer = Layer("a", "x/a.yaml", nested(key, value), is_trusted=False)
    (fault,) = environment_faults([layer], "https://mlflow.example")
    assert fault.startswith(f"{key} in x/a.yaml: what is there would be sent to https://mlflow.example")
    assert environment_faults([layer, Layer("override", "override", {}, key)], "https://mlflow.example") == []
    assert environment_faults([layer], "sqlite:///mlruns/mlflow.db") == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.weights", "imagenet"), ("data.root", None), ("output_dir", "mlruns"), ("data.cache_dir", "cache"),
        ("tracking.uri", "https://mlflow.example"), ("trainer.class_weights", "balanced"),
    ],
)  # fmt: skip
def test_words_and_folders_that_are_written_to_are_no_data(key, value):
    layer = Layer("a", "x/a.yaml", nested(key, value), is_trusted=False)
    assert environment_faults([layer], "https://mlflow.example") == []


def test_an_option_of_a_space_is_held_to_the_rules_of_its_file(tmp_path, monkeypatch):
    """A folder beside a sweep file may have options that the space chooses among."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FERHPO_STUDENT", "ann")
    options = {"model": {"options": ["cnn", "evil"]}}
    file = sweep_file(tmp_path / "a" / "b.yaml", space=options, tracking={"uri": "https://mlflow.example"})
    option = tmp_path / "a" / "model" / "evil.yaml"
    option.parent.mkdir()
    for content, rule in [
        ({"weights": "private.pth"}, "model.weights in model/evil.yaml: what is there would be sent to"),
        (
            {"weights": "${oc.env:FERHPO_STUDENT}"},
            "the value of FERHPO_STUDENT would be sent to https://mlflow.example",
        ),
        ({"weights": "${oc.env:MY_TOKEN}"}, "the value of MY_TOKEN may be a secret"),
    ]:
        option.write_text(yaml.safe_dump({"defaults": ["cnn", "_self_"], **content}))
        assert any(rule in fault for fault in faults_of(file)), faults_of(file)


AMBIGUOUS = [
    "http://evil.example\\@127.0.0.1:5000",
    "http://evil.example?x=@127.0.0.1:5000",
    "http://evil.example/@127.0.0.1:5000",
    "http://evil.example#@127.0.0.1:5000",
    "sqlite:////srv/other.db?/../../out/x.db",
    "sqlite:////srv/other.db#/x.db",
]


@pytest.mark.parametrize("uri", AMBIGUOUS)
def test_an_address_that_libraries_read_differently_is_refused(tmp_path, uri):
    with pytest.raises(ConfigError, match=r"special characters must be escaped|must have no \? and no #"):
        TrackingSettings(tmp_path, uri)


@pytest.mark.parametrize(
    ("users", "files"),
    [
        ("mssql+pyodbc:///?odbc_connect=SERVER%3Dgood", "mssql+pyodbc:///?odbc_connect=DRIVER%3D%2Ftmp%2Fevil.so"),
        ("postgresql://u:p@db.example/mlflow", "postgresql://x:y@[2001:db8::1]@db.example/mlflow"),
        ("sqlite:////data/me@lab/mlflow.db", "sqlite:////home/me/x@lab/mlflow.db"),
        ("http://me:secret@host.example", "http://x:y@[::1]@host.example"),
    ],
)
@pytest.mark.parametrize("named", ["variable", "command line"])
def test_an_address_that_looks_like_the_users_is_another(tmp_path, monkeypatch, users, files, named):
    """What is hidden of both would be the same."""
    monkeypatch.setattr(secrets, "_given", {})
    if named == "variable":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", users)
    else:
        compose("demo", [f"tracking.uri='{users}'"])
    assert trust.is_trusted(trust.STORE, users)
    sweep_file(tmp_path / "a.yaml", tracking={"uri": files})
    try:
        address = compose(str(tmp_path / "a.yaml")).config["tracking"]["uri"]
    except FerhpoError:
        return
    # One that stands for the user's own address is the user's: nothing of the file is left in it.
    assert secrets.reveal(address) == users or not trust.is_trusted(trust.STORE, address)
    assert not trust.is_trusted(trust.STORE, files)


def test_a_file_replaces_no_account_of_the_users(tmp_path, monkeypatch):
    monkeypatch.setattr(secrets, "_given", {})
    sweep_file(tmp_path / "a.yaml", tracking={"uri": "http://evil:theirs@host.example"})
    for _ in range(2):
        config = compose(str(tmp_path / "a.yaml"), ["tracking.uri=http://me:mine@host.example"]).config
        assert config["tracking"]["uri"] == "http://***@host.example"
        assert secrets.reveal("http://***@host.example") == "http://me:mine@host.example"
        with suppress(ConfigError):
            compose(str(tmp_path / "a.yaml"))
        assert secrets.reveal("http://***@host.example") == "http://me:mine@host.example"
    compose("demo", ["tracking.uri=http://me:new@host.example"])
    assert secrets.reveal("http://***@host.example") == "http://me:new@host.example", "the user may change it"


def test_an_option_of_a_space_hides_nothing_of_a_file(tmp_path, monkeypatch):
    """It is another option's, and replaces nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps" / "model").mkdir(parents=True)
    option = {"_target_": "ferhpo.models.backbone.Backbone", "arch": "resnet18", "weights": "none"}
    (tmp_path / "sweeps" / "model" / "zzz.yaml").write_text(yaml.safe_dump(option))
    sections = {
        "defaults": ["demo", {"override model": "torchvision"}, "_self_"],
        "model": {"weights": "../private.pt"},
        "tracking": {"uri": "http://127.0.0.2:8098"},
    }
    sweep_file(tmp_path / "sweeps" / "a.yaml", **sections, space={"model": {"options": ["torchvision", "zzz"]}})
    assert any("model.weights" in fault and "would be sent" in fault for fault in faults_of("a"))


@pytest.mark.parametrize(
    "space",
    [
        {"model": {"weights": {"choices": ["../private.pt", "none"]}}},
        {"model": {"weights": ["../private.pt", "none"]}},
        {"model": {"options": ["torchvision"], "torchvision": {"weights": {"choices": ["../private.pt"]}}}},
    ],
)
def test_a_space_draws_no_file_for_a_server_that_a_file_names(tmp_path, monkeypatch, space):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private.pt").touch()
    sections = {"defaults": ["demo", {"override model": "torchvision"}, "_self_"], "space": space}
    sweep_file(tmp_path / "sweeps" / "a.yaml", **sections, tracking={"uri": "http://127.0.0.2:8098"})
    faults = faults_of("a")
    assert any("weights" in fault and "would be sent" in fault for fault in faults), faults


def test_the_file_with_mlflows_account_counts_as_a_credential(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trust.server_fault("https://mlflow.example") == ""
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text("[mlflow]\nmlflow_tracking_username = ann\n")
    assert "~/.mlflow/credentials would be sent to it" in trust.server_fault("https://mlflow.example")


@pytest.mark.parametrize(
    "location", ["http://evil.example/a", "mlflow-artifacts://evil.example/a", "https://evil.example"]
)
def test_a_store_sends_no_token_to_another_server(monkeypatch, location):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret-7")
    for store in (STORE, "https://mlflow.example"):
        trust.trust_address("tracking.uri", store)
        fault = fault_of_place(location, RUN, store)
        assert "MLFLOW_TRACKING_TOKEN would be sent to it" in fault
        assert "secret-7" not in fault
    assert fault_of_place("https://evil.example/a", RUN, "https://evil.example/") == "", "the store itself"


def test_a_model_is_not_fetched_from_another_server_with_a_token(tmp_path, monkeypatch, empty_store):
    from ferhpo.tracking import fetch

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    client = connect(settings := TrackingSettings(output_dir=tmp_path))
    client.create_registered_model("faces")
    experiment = client.create_experiment("ferhpo", str(tmp_path / "artifacts"))
    run = client.create_run(experiment).info
    client.create_model_version("faces", f"{run.artifact_uri}/model", run_id=run.run_id)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        evil = "http://evil.example/api/2.0/mlflow-artifacts/artifacts/m"
        database.execute("UPDATE model_versions SET source = ?, storage_location = ?", (evil, evil))
        database.execute("UPDATE runs SET artifact_uri = ?", (evil,))
        database.commit()
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret-7")
    for rule in ("is not in the folder of this store", "MLFLOW_TRACKING_TOKEN would be sent to it"):
        with pytest.raises(TrackingError, match=rule):
            fetch.download(settings, "faces", 1, tmp_path / "out")
        with pytest.raises(TrackingError, match=rule):
            fetch.run_config(settings, run.run_id)
        trust.trust_address("tracking.uri", settings.shown_uri)


@pytest.mark.parametrize("link", ["artifacts", "below", "run"])
def test_nothing_is_written_through_a_link_in_a_store(tmp_path, link):
    """A copied output folder whose store has links; their targets may be relative, and so travel with it."""
    place, outside = tmp_path / "store" / RUN / "artifacts", tmp_path / "outside"
    (outside / "artifacts").mkdir(parents=True)
    if link == "artifacts":
        place.parent.mkdir(parents=True)
        place.symlink_to("../../outside")
    elif link == "run":
        place.parent.parent.mkdir(parents=True)
        place.parent.symlink_to("../outside")
    else:
        place.mkdir(parents=True)
        (place / "report").symlink_to("../../../outside")
    fault = fault_of_place(str(place), RUN, f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}")
    assert ("is a link; nothing is written through links" if link == "below" else "is not in the folder") in fault
    trust.trust_address("tracking.uri", STORE)
    assert "is a link; nothing is written through links" in fault_of_place(str(place), RUN, STORE)


@pytest.mark.parametrize("kind", ["the folder", "a file in it", "a folder in it"])
@pytest.mark.parametrize("verb", ["sweep", "train"])
def test_a_new_sweep_writes_through_no_link(tmp_path, monkeypatch, capsys, kind, verb):
    """A copied output folder without sweep.json, with links where a sweep writes."""
    monkeypatch.chdir(tmp_path)
    runs, outside = tmp_path / "mlruns", tmp_path / "outside"
    outside.mkdir()
    (outside / "bashrc").write_text("mine")
    runs.mkdir()
    if kind == "the folder":
        (runs / "x").symlink_to("../outside")
    else:
        (runs / "x").mkdir()
        (runs / "x" / "driver.lock" if kind == "a file in it" else runs / "x" / "report").symlink_to(
            "../../outside/bashrc" if kind == "a file in it" else "../../outside"
        )
    assert cli.main([verb, "demo", "name=x", "tracking=none"]) == 2
    said = capsys.readouterr().err
    assert (
        " is a link to " if kind == "the folder" else " and no sweep.json: these are files of something else"
    ) in said
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"bashrc": "mine"}


def test_the_lock_of_a_store_is_no_link(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "mlflow.db.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        connect(TrackingSettings(output_dir=tmp_path))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("hooks/post-index-change", "#!/bin/sh\ntouch {marker}\n"),
        ("config", "[filter \"x\"]\n\tclean = touch {marker}\n"),
        ("config", "[core]\n\tfsmonitor = touch {marker}\n"),
        ("config", "[remote \"o\"]\n\turl = x\n\tuploadpack = touch {marker}\n\tpromisor = true\n"),
        ("config.worktree", "[filter \"x\"]\n\tclean = touch {marker}\n"),
    ],
)  # fmt: skip
def test_looking_at_a_repository_runs_nothing_of_it(tmp_path, monkeypatch, file, content):
    import subprocess

    from ferhpo.storage.provenance import git_state

    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True
        )

    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / ".gitattributes").write_text("*.txt filter=x\n")
    git("add", ".")
    git("commit", "-q", "-m", "a")
    clean = git_state()
    assert clean["dirty"] == "false"
    marker = tmp_path / "ran"
    place = tmp_path / ".git" / file
    if file == "config.worktree":
        git("config", "extensions.worktreeConfig", "true")
    with place.open("a") as out:
        out.write(content.format(marker=marker))
    place.chmod(0o755)
    (tmp_path / "a.txt").write_text("a")  # another time, so that git looks at its content
    state = git_state()
    assert not marker.exists()
    assert state["commit"] == clean["commit"]
    assert state["dirty"] == ("unknown" if "config" in file else "false")


def test_promote_takes_a_version_of_the_sweep_only(tmp_path, empty_store):
    """Another sweep may register under any name."""
    from ferhpo.tracking import registry

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    client = connect(settings := TrackingSettings(output_dir=tmp_path))
    client.create_registered_model("ferhpo-base")
    for tags in (
        {"ferhpo.sweep": "base"},
        {"ferhpo.sweep": "base-confirm", "ferhpo.confirms": "base"},
        {"ferhpo.sweep": "evil"},
    ):
        client.create_model_version("ferhpo-base", "/x", tags=tags)
    known = registry.versions(settings, "ferhpo-base")
    assert registry.choose(known, "ferhpo-base", "base").number == 2
    assert registry.choose(known, "ferhpo-base", "base", 3).number == 3, "if it is named"
    with pytest.raises(TrackingError, match="has no version of sweep other, but of base, base-confirm, evil; name the"):
        registry.choose(known, "ferhpo-base", "other")


def test_a_view_is_no_format(tmp_path, monkeypatch):
    """The address of a view in a spool could ask for gigabytes of padding."""
    from ferhpo.cli.screen.console import view_text

    view = "http://127.0.0.2/{server:6000000000}"
    assert str(view_text(view, TrackingSettings(tmp_path, "http://127.0.0.2")))[:60] == view


def test_what_is_printed_and_exported_commands_no_terminal_and_no_spreadsheet(tmp_path, capsys):
    from ferhpo.cli.screen.console import make_console, typed
    from ferhpo.reports.panel import write_table
    from ferhpo.text import csv_cell

    evil = "\x1b]0;title\x07\x1b[2J\u202e"
    make_console().print(f"a {evil}\nb", soft_wrap=True)
    assert capsys.readouterr().out == "a \\x1b]0;title\\x1b[2J\\u202e\nb\n", "rich drops the bell"
    assert typed(f"run ferhpo {evil}") == "run ferhpo \\x1b]0;title\\x07\\x1b[2J\\u202e"
    rows = [{"=name": "=cmd|'/c calc'!A0", "lr": "-0.5", "x": -3, "y": "@a", "z": "plain"}]
    text = write_table(tmp_path / "t.csv", rows).read_text()
    assert text == "'=name,lr,x,y,z\n'=cmd|'/c calc'!A0,-0.5,-3,'@a,plain\n"
    assert csv_cell("+1e-3") == "+1e-3"


def test_a_compressed_checkpoint_is_refused_before_it_expands(tmp_path):
    import zipfile

    import torch

    from ferhpo.errors import SweepError
    from ferhpo.models.backbone import _read_weights
    from ferhpo.training.checkpoint import read

    torch.save({"x": torch.zeros(1_000_000)}, tmp_path / "plain.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "plain.ckpt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    assert (tmp_path / "bomb.ckpt").stat().st_size < 100_000
    with pytest.raises(SweepError, match="it is compressed, which torch does not write"):
        read(tmp_path / "bomb.ckpt")
    (tmp_path / "bomb.ckpt").rename(tmp_path / "bomb.pth")
    with pytest.raises(ValueError, match=r"weights is .*bomb\.pth, which is damaged \(it is compressed"):
        _read_weights("resnet18", str(tmp_path / "bomb.pth"))


@pytest.mark.full
def test_python_files_of_the_current_folder_are_not_imported(tmp_path):
    """Neither by Ray's workers nor by MLflow's server: one may have changed into a copied folder."""
    import shutil as files
    import subprocess
    import sys

    for name in ("pyarrow", "fsspec", "pydantic", "starlette", "importlib", "optuna"):
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__)\nraise ImportError\n"
        )
    ferhpo = files.which("ferhpo", path=str(Path(sys.executable).parent))
    small = ["data.num_train=140", "data.num_val=70", "data.num_test=14", "trainer.max_epochs=1", "num_trials=1"]
    done = subprocess.run([ferhpo, "sweep", "demo", *small], cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    with subprocess.Popen([ferhpo, "ui", "--port", "5391"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout.readline().startswith("MLflow UI: ")
        with pytest.raises(subprocess.TimeoutExpired):
            server.wait(15)
        server.terminate()
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


def test_a_default_of_a_variable_is_no_reference(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = sweep_file(
        tmp_path / "a.yaml", tracking={"experiment": "${oc.env:FERHPO_STUDENT,of-nobody}-${objective.metric}"}
    )
    assert faults_of(file) == []


def test_a_file_that_builds_on_another_is_held_to_the_same_rule(tmp_path, monkeypatch):
    """ferhpo's own `path: ???` after a path leaves it as it is."""
    monkeypatch.chdir(tmp_path)
    first = {"defaults": ["_self_", "vulpe2021"], "data": {"path": "pictures", "ferplus_path": "x"}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(first))
    file = tmp_path / "b.yaml"
    second = {"defaults": ["base", "_self_"], "tracking": {"uri": "https://mlflow.example"}}
    file.write_text(yaml.safe_dump(second))
    assert any("what is there would be sent to https://mlflow.example" in fault for fault in faults_of(file))


@pytest.mark.parametrize("key", ["data.cache_dir", "data", "tracking.uri", "output_dir"])
def test_a_study_samples_nothing_that_says_where(tmp_path, key):
    """An edited study.jsonl of a copied sweep."""
    from ferhpo.errors import SweepError

    sweep = made_sweep(tmp_path / "runs", ["COMPLETE"])
    journal = sweep.folder / "study.jsonl"
    journal.write_text(journal.read_text().replace('"optim.lr"', f'"{key}"'))
    with pytest.raises(SweepError, match=rf"the sample of trial 0 has {key}, which no space can vary"):
        load_sweep(sweep.folder).trials()


@pytest.mark.parametrize(
    "source", ["runs:/{}/model", "RUNS:/{}/model", "runs://{}/model", " runs:/{}/model", "r\tuns:/{}/model"]
)
def test_references_of_a_store_lead_to_no_other_server(tmp_path, monkeypatch, empty_store, source):
    from ferhpo.tracking import fetch

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    client = connect(settings := TrackingSettings(output_dir=tmp_path))
    client.create_registered_model("faces")
    run = client.create_run(client.create_experiment("ferhpo", str(tmp_path / "artifacts"))).info
    client.create_model_version("faces", f"{run.artifact_uri}/model", run_id=run.run_id)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("UPDATE model_versions SET source = ?, storage_location = NULL", (source.format(run.run_id),))
        database.execute("UPDATE runs SET artifact_uri = ?", ("http://evil.example/a",))
        database.commit()
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret-7")
    with pytest.raises(TrackingError, match=r"is not in the folder of this store|whose meaning is not certain"):
        fetch.download(settings, "faces", 1, tmp_path / "out")


@pytest.mark.parametrize(
    "location",
    [
        "http://evil.example\\@127.0.0.1/a",
        "http://evil.example@127.0.0.1/a",
        "http:evil.example/a",
        "http://[evil.example/a",
        "HTTP:///evil.example/a",
        "mlflow-artifacts://evil.example\\@127.0.0.1/a",
        "http://127.0.0.1\t.evil.example/a",
        f" runs:/{RUN}/model",
        f"\x01runs:/{RUN}/model",
        f"r\tuns:/{RUN}/model",
        f"FILE:/srv/{RUN}/artifacts",
        f"/srv/%61rts/{RUN}/artifacts",
        f"file://evil.example/srv/{RUN}/artifacts",
    ],
)
def test_a_place_whose_server_is_not_certain_is_refused(location):
    assert "whose meaning is not certain" in fault_of_place(location, RUN, STORE)


def test_an_account_for_every_server_counts_as_a_credential(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine other.example login a password b\n")
    netrc.chmod(0o600)
    assert trust.server_fault("https://mlflow.example") == "", "an account for one server goes to that one"
    netrc.write_text("default login a password b\n")
    assert "the default account of ~/.netrc would be sent to it" in trust.server_fault("https://mlflow.example")


def test_a_tensor_larger_than_its_file_is_refused(tmp_path):
    import torch

    from ferhpo.errors import SweepError
    from ferhpo.training.checkpoint import BEST_KEYS, FORMAT, read

    content = {"format": FORMAT, **dict.fromkeys(BEST_KEYS, 0), "confusion": torch.zeros(1).expand(60_000, 60_000)}
    torch.save(content, tmp_path / "best.ckpt")
    with pytest.raises(SweepError, match="it has a tensor that is larger than the file"):
        read(tmp_path / "best.ckpt")


def test_deeply_nested_lines_are_damaged_lines(tmp_path):
    from ferhpo.tracking.spool import Spool
    from ferhpo.tracking.upload.rejected import read_rejected

    deep = "[" * 200_000 + "\n"
    (tmp_path / "rejected.jsonl").write_text(deep + '{"reason": "x"}\n')
    assert read_rejected(tmp_path) == [{"reason": "x"}]
    spool = Spool(tmp_path)
    with (tmp_path / "spool.jsonl").open("a") as file:
        file.write(deep)
    with pytest.raises(TrackingError, match="delete this line"):
        spool.read(0, 10)
    spool.close()


def test_an_image_size_of_a_model_is_bounded():
    from ferhpo.tracking.models import _example

    with pytest.raises(ValueError, match=r"preprocess\.image_size in model\.json is 60000; it must be from 1 to "):
        _example({"image_size": 60_000, "channels": 1})


@pytest.mark.parametrize("location", ["mlruns/arts/{}/artifacts", "mlruns/%61rts/{}/artifacts", "{}/artifacts"])
def test_a_relative_or_encoded_place_is_refused(location):
    """MLflow decodes it, and a link beside the sweep could lead anywhere."""
    assert fault_of_place(location.format(RUN), RUN, STORE) != ""


@pytest.mark.parametrize("section", [{"main": {}}, {"path": "???"}, {}])
def test_an_empty_section_hides_no_path_of_another_file(tmp_path, monkeypatch, section):
    monkeypatch.chdir(tmp_path)
    first = {"defaults": ["vulpe2021", "_self_"], "data": {"path": "p"}, "tracking": {"uri": "https://mlflow.example"}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(first))
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump({"defaults": ["base", "_self_"], "data": section}))
    assert any("data.path in " in fault and "would be sent to" in fault for fault in faults_of(tmp_path / "evil.yaml"))


@pytest.mark.parametrize("location", ["runs:/" + RUN, "models:/m-" + RUN, "models:/faces/1"])
def test_an_experiment_whose_location_is_a_reference_is_refused(location):
    assert "refers to another place" in fault_of_owner(location, STORE)


def test_a_token_of_azure_goes_to_azure_only(tmp_path):
    """MLflow sends it to any domain, and a store that the user trusts may not have been written by the user."""
    uri = "https://mlflow.example"
    trust.trust_address(trust.STORE, uri)
    assert fault_of_owner("abfss://files@faces.dfs.core.windows.net/1", uri) == ""
    for host in ["files@faces.evil.example", "files@core.windows.net.evil.example", "files@faces.core.windows.net:1"]:
        assert "is not a server of Azure" in fault_of_owner(f"abfss://{host}/1", uri)


def test_the_sweep_of_a_version_is_a_name(tmp_path):
    from datetime import UTC, datetime

    from ferhpo.evaluation.versions import local_trial
    from ferhpo.tracking.registry import Version

    made_sweep(tmp_path / "elsewhere", ["COMPLETE"])
    (tmp_path / "mlruns").mkdir()
    tags = {"ferhpo.sweep": "../elsewhere/made", "ferhpo.trial": "0"}
    version = Version("m", 1, (), None, None, datetime.now(UTC), tags, "")
    assert local_trial(version, TrackingSettings(tmp_path / "mlruns"), tmp_path / "mlruns") == (None, None)


def test_a_cluster_of_this_machine_is_one_of_the_users():
    assert [trust.cluster_fault(text) for text in ("auto", "127.0.0.1:6379", "ray://localhost:10001")] == [""] * 3
    for text in ("127.0.0.1.evil.example:1", "evil.example:6379@127.0.0.1:1", "ray://127.0.0.1:1@evil.example:1"):
        assert "in a file; a Ray cluster can run code" in trust.cluster_fault(text)
