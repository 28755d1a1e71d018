"""Passwords in tracking.uri: in no file, line or store that a sweep leaves, and a new process has to be told them again."""

import base64
import json
import os
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import pytest

import ferhpo
from ferhpo import cli
from ferhpo.config.compose import set_values
from ferhpo.errors import ConfigError, FerhpoError, TrackingError
from ferhpo.storage.sweep import META, create_sweep
from ferhpo.tracking import Tracker, TrackingSettings, check_store, registry, secrets, sync
from ferhpo.tracking.secrets import _masked
from ferhpo.tuning.preflight import resumed
from tests.conftest import TINY
from tests.servers import PASSWORD, Postgres, Proxy, Server, assert_whole_in_mlflow, running

WEB = f"web-{PASSWORD}"
ADDRESSES = [
    f"http://ann:{WEB}@127.0.0.1:9",
    f"postgresql+psycopg2://ann:{WEB}@127.0.0.1:9/ml",
    f"mysql+pymysql://127.0.0.1:9/ml?user=ann&password={WEB}",
    f"http://{WEB}@127.0.0.1:9",  # a token
]


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """Forget what earlier tests gave, as a new process has."""
    monkeypatch.setattr(secrets, "_given", {})
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def forget():
    secrets._given.clear()


def files_that_tell(folder):
    """Files that hold a password, plain or as an HTTP header carries it."""
    header = base64.b64encode(f"ann:{WEB}".encode()).rstrip(b"=")[4:-2]
    return [
        path
        for path in Path(folder).rglob("*")
        if path.is_file() and any(word in path.read_bytes() for word in (PASSWORD.encode(), header))
    ]


def test_a_configuration_holds_no_password_and_mlflow_gets_it(capsys, tmp_path):
    uri = ADDRESSES[0]
    composed = ferhpo.compose("demo", [f"tracking.uri={uri}", f"output_dir={tmp_path}"])
    assert PASSWORD not in repr(composed)
    assert TrackingSettings.from_config(composed.config["tracking"], tmp_path).store_uri == uri
    assert cli.main(["show", "demo", f"tracking.uri={uri}"]) == 0
    assert PASSWORD not in capsys.readouterr().out
    record = create_sweep(composed)
    assert files_that_tell(tmp_path) == []
    forget()
    config = ferhpo.load_sweep(record.folder).config
    assert config["tracking"]["uri"] == "http://***@127.0.0.1:9"
    with pytest.raises(TrackingError, match=r"its password is not kept on disk; give the whole address again as track"):
        _ = TrackingSettings.from_config(config["tracking"], tmp_path).store_uri


@pytest.mark.parametrize("uri", ADDRESSES)
def test_an_address_is_shown_without_its_password(uri, tmp_path):
    settings = TrackingSettings(output_dir=tmp_path, uri=uri)
    assert settings.store_uri == uri
    assert PASSWORD not in repr(settings) + settings.shown_uri
    stored = settings.uri
    forget()
    assert TrackingSettings(output_dir=tmp_path, uri=stored).shown_uri == settings.shown_uri
    assert TrackingSettings(output_dir=tmp_path, uri=stored).lacks_password


@pytest.mark.parametrize(
    "uri",
    [
        f"http://ann:{PASSWORD}@h:port",
        f"http://ann:a/{PASSWORD}@h",
        f"http://ann:1/{PASSWORD}@h",
        f"http://ann:b@c/{PASSWORD}@h",
        f"ftp://ann:{PASSWORD}@h",
    ],
)
def test_no_message_about_a_wrong_address_shows_it(uri, tmp_path):
    with pytest.raises(ConfigError) as caught:
        TrackingSettings(output_dir=tmp_path, uri=uri)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("verb", "override"),
    [
        (["sweep"], f"tracking.uri=http://ann:{PASSWORD}@h/=x"),
        (["sweep"], f"tracking=http://ann:{PASSWORD}@h"),
        (["sweep"], f"--tracking.uri=http://ann:{PASSWORD}@h"),
        (["sweep", "--resume"], f"tracking.uri=[http://ann:{PASSWORD}@h"),
        (["sync", "--output-dir=none"], f"uri=http://ann:{PASSWORD}@h"),
    ],
)
def test_no_message_about_a_wrong_command_shows_it(verb, override, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "--resume" in verb:
        create_sweep(ferhpo.compose("demo", ["tracking=none"]))
    with suppress(SystemExit):  # of argparse
        assert cli.main([*verb, "demo", override]) == 2
    out, err = capsys.readouterr()
    assert err
    assert PASSWORD not in out + err
    assert files_that_tell(tmp_path) == []


@pytest.mark.parametrize("quotes", ["{}", '"{}"', "'{}'"])
@pytest.mark.parametrize("odd", [" ", "'", '"', "<"])
@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg2"])
def test_an_address_with_spaces_or_quotes_is_refused_and_not_shown(scheme, odd, quotes, capsys, tmp_path):
    given = quotes.format(f"{scheme}://ann:open{odd}{PASSWORD}@h/db")
    assert cli.main(["sweep", "demo", f"output_dir={tmp_path}", f"tracking.uri={given}"]) == 2
    said = "".join(capsys.readouterr())
    assert "tracking.uri" in said
    assert PASSWORD not in said
    assert "open" not in said.replace("openssl", "")
    assert files_that_tell(tmp_path) == []
    assert PASSWORD not in _masked(f"tracking.uri={given}")
    assert len(_masked(f"tracking.uri={given}")) == len(f"tracking.uri={given}")


@pytest.mark.parametrize("uri", ADDRESSES[:2])
def test_no_traceback_shows_it(uri, tmp_path):
    settings = TrackingSettings(output_dir=tmp_path, uri=uri)
    Tracker(tmp_path / "s", settings).close(0)
    for call in (
        lambda: check_store(settings),
        lambda: sync(tmp_path / "s", settings),
        lambda: registry.versions(settings, "ferhpo-demo"),
    ):
        try:
            call()
        except FerhpoError:
            assert PASSWORD not in traceback.format_exc()


def test_a_new_process_takes_the_password_from_the_environment(monkeypatch, tmp_path):
    stored = TrackingSettings(output_dir=tmp_path, uri="http://***@h:5000")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:other@elsewhere:5000")
    assert stored.lacks_password
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:{WEB}@h:5000/")
    assert stored.store_uri == f"http://ann:{WEB}@h:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")  # with _PASSWORD: MLflow's client reads them
    assert (stored.store_uri, stored.shown_uri) == ("http://h:5000", "http://***@h:5000")


def test_a_resume_may_give_it_again_and_a_confirmation_keeps_none(tmp_path):
    uri = f"http://ann:{WEB}@127.0.0.1:9"
    composed = ferhpo.compose("demo", [*TINY, f"output_dir={tmp_path}", f"tracking.uri={uri}"])
    create_sweep(composed)
    forget()
    record = resumed("demo", [f"output_dir={tmp_path}", f"tracking.uri={uri}"], "sweep")
    assert record.config["tracking"]["uri"] == "http://***@127.0.0.1:9"
    settings = TrackingSettings.from_config(record.config["tracking"], tmp_path)
    assert settings.store_uri == uri
    forget()
    config = json.loads((tmp_path / "demo" / META).read_text())["composed"]["config"]
    assert set_values(config, [f"tracking.uri={uri}"]) == []
    assert PASSWORD not in json.dumps(config)
    assert TrackingSettings.from_config(config["tracking"], tmp_path).store_uri == uri


def test_a_name_without_a_password_is_no_secret(tmp_path):
    """libpq finds the password itself: in PGPASSWORD, or ~/.pgpass."""
    settings = TrackingSettings(output_dir=tmp_path, uri="postgresql+psycopg2://ann@db/ml")
    assert settings.store_uri == settings.uri == "postgresql+psycopg2://ann@db/ml"
    assert TrackingSettings(output_dir=tmp_path, uri="sqlite:////a/b@c.db").store_uri == "sqlite:////a/b@c.db"


def test_an_address_with_characters_that_must_be_escaped_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"tracking\.uri is http://\*\*\*@h; a password's special characters must be"):
        TrackingSettings(output_dir=tmp_path, uri="http://ann:a/b@h")


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the command line is hidden on Linux alone")
def test_the_command_line_of_a_process_does_not_show_it():
    program = (
        "from pathlib import Path; from ferhpo.tracking.secrets import hide_command_line as hide; import sys\n"
        "hide(); print(Path('/proc/self/cmdline').read_bytes().split(b'\\0')[-5:]); print(sys.argv[1:])"
    )
    given = ["sweep", f"tracking.uri=http://ann:{WEB}@h/x", f"b='mysql://h/d?password={WEB}&x=1'", "c=d@e"]
    done = subprocess.run([sys.executable, "-c", program, *given], capture_output=True, text=True, check=True)
    shown, kept = done.stdout.splitlines()
    hidden = "*" * len(f"ann:{WEB}")
    assert shown == str([
        b"sweep", f"tracking.uri=http://{hidden}@h/x".encode(),
        f"b='mysql://h/d?password={hidden[4:]}&x=1'".encode(), b"c=d@e", b"",
    ])  # fmt: skip
    assert kept == str(given)


SWEEP = [
    *TINY,
    "trainer.max_epochs=1",
    "compute.num_cpus=1",
    "compute.gpus_per_trial=0",
    "tracking.report=true",
]


def ferhpo_process(*arguments, **environment):
    """Run a command in a process of its own; returns (exit status, all that it said)."""
    command = [sys.executable, "-m", "ferhpo.cli", *map(str, arguments)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    )
    assert PASSWORD not in done.stdout, done.stdout
    return done.returncode, done.stdout


def refused(capsys, *arguments):
    """What a command says that ends with exit status 2, in a process that knows no password."""
    forget()
    assert cli.main([str(argument) for argument in arguments]) == 2
    said = "".join(capsys.readouterr())
    assert PASSWORD not in said
    return said


@pytest.mark.full
@pytest.mark.timeout(1500)
def test_no_password_is_left_anywhere_by_real_sweeps(warm, tmp_path, capsys):
    """A server behind basic authentication, over PostgreSQL with a password; then that PostgreSQL without a server."""
    folder = tmp_path / "mlruns"
    (tmp_path / "server").mkdir()
    database = Postgres()
    server = Server(tmp_path / "server", database.uri)
    with running(database, server):
        proxy = Proxy(server)
        proxy.user, proxy.password = "ann", WEB
        uri = proxy.url_for("ann", WEB)
        new = ["sweep", "demo", f"output_dir={folder}", "num_trials=2", *SWEEP]
        again = ["sweep", "--resume", "demo", f"output_dir={folder}", "num_trials=3"]
        sync = ["sync", "demo", "--output-dir", folder]
        with running(proxy):
            assert "it answers with an error (error code 401); correct tracking.uri" in refused(
                capsys, *new, f"tracking.uri={proxy.url}"
            )
            status, told = ferhpo_process(*new, f"tracking.uri={uri}")
            assert (status, "Registered ferhpo-demo version 1" in told) == (0, True), told
            says = (
                f"tracking.uri is http://***@127.0.0.1:{proxy.port}: its password is not kept on disk; give the whole"
            )
            assert refused(capsys, *again).startswith(says)
            status, told = ferhpo_process(*again, f"tracking.uri={uri}")
            assert (status, "refused" in told) == (0, False), told
            assert refused(capsys, *sync).startswith(says)
            status, told = ferhpo_process(*sync, MLFLOW_TRACKING_URI=uri)
            assert (status, told.startswith("0 records uploaded")) == (0, True), told
            for verb in ("doctor", "runs"):
                assert cli.main([verb, "--output-dir", str(folder)]) == 0
            assert PASSWORD not in "".join(capsys.readouterr())
            assert_whole_in_mlflow(client_of(server.url, folder), ferhpo.load_sweep("demo", folder))
        # MLflow writes no artifacts of a server's experiment without that server.
        direct = ["train", "demo", f"output_dir={folder}", *SWEEP, "tracking.experiment=direct"]
        status, told = ferhpo_process(*direct, "name=direct", f"tracking.uri={database.uri}")
        assert (status, "not in MLflow yet" in told) == (0, False), told
        assert_whole_in_mlflow(client_of(database.uri, folder), ferhpo.load_sweep("direct", folder), "direct")
        dump = database.dump()
        database.stop()
        said = refused(capsys, *direct, "name=away", f"tracking.uri={database.uri}")
        assert "no answer within 5 s (connection refused); start the server" in said
    assert "ferhpo.trial" in dump
    assert PASSWORD not in dump
    assert files_that_tell(folder) == []
    assert files_that_tell(tmp_path / "server" / "artifacts") == []
    assert len(list(folder.rglob("*"))) > 20


def client_of(uri, folder):
    from ferhpo.tracking.store import connect

    return connect(TrackingSettings(output_dir=folder, uri=uri))
