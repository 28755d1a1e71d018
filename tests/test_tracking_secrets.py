"""Passwords in tracking.uri: in no file, message or store of a sweep. A new process needs them again."""

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
from ferhpo.addresses import secrets
from ferhpo.addresses.secrets import _masked
from ferhpo.addresses.trust import trust_address
from ferhpo.config.change import set_values
from ferhpo.errors import ConfigError, FerhpoError, TrackingError
from ferhpo.storage.meta import META
from ferhpo.storage.sweep import create_sweep
from ferhpo.tracking import Tracker, TrackingSettings, check_store, registry, sync
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
    """Start each test without known passwords, like a new process."""
    monkeypatch.setattr(secrets, "_given", {})
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def forget():
    """Forget all passwords, like a new process."""
    secrets._given.clear()


def files_with_password(folder):
    """Return the files that contain a password, plain or encoded as in an HTTP header."""
    header = base64.b64encode(f"ann:{WEB}".encode()).rstrip(b"=")[4:-2]
    return [
        path
        for path in Path(folder).rglob("*")
        if path.is_file() and any(word in path.read_bytes() for word in (PASSWORD.encode(), header))
    ]


def test_a_configuration_has_no_password_and_mlflow_gets_it(capsys, tmp_path):
    uri = ADDRESSES[0]
    composed = ferhpo.compose("demo", [f"tracking.uri={uri}", f"output_dir={tmp_path}"])
    assert PASSWORD not in repr(composed)
    assert TrackingSettings.from_config(composed.config["tracking"], tmp_path).store_uri == uri
    assert cli.main(["show", "demo", f"tracking.uri={uri}"]) == 0
    assert PASSWORD not in capsys.readouterr().out
    sweep = create_sweep(composed)
    assert files_with_password(tmp_path) == []
    forget()
    config = ferhpo.load_sweep(sweep.folder).config
    assert config["tracking"]["uri"] == "http://***@127.0.0.1:9"
    with pytest.raises(TrackingError, match=r"its password is not stored on disk; give the full address again with tr"):
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
def test_no_message_about_an_invalid_address_shows_its_password(uri, tmp_path):
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
def test_no_message_about_an_invalid_command_shows_the_password(verb, override, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "--resume" in verb:
        create_sweep(ferhpo.compose("demo", ["tracking=none"]))
    with suppress(SystemExit):  # from argparse
        assert cli.main([*verb, "demo", override]) == 2
    out, err = capsys.readouterr()
    assert err
    assert PASSWORD not in out + err
    assert files_with_password(tmp_path) == []


@pytest.mark.parametrize("quotes", ["{}", '"{}"', "'{}'"])
@pytest.mark.parametrize("odd", [" ", "'", '"', "<"])
@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg2"])
def test_an_address_with_spaces_or_quotes_is_refused_without_showing_it(scheme, odd, quotes, capsys, tmp_path):
    given = quotes.format(f"{scheme}://ann:open{odd}{PASSWORD}@h/db")
    assert cli.main(["sweep", "demo", f"output_dir={tmp_path}", f"tracking.uri={given}"]) == 2
    output = "".join(capsys.readouterr())
    assert "tracking.uri" in output
    assert PASSWORD not in output
    assert "open" not in output.replace("openssl", "")
    assert files_with_password(tmp_path) == []
    assert PASSWORD not in _masked(f"tracking.uri={given}")
    assert len(_masked(f"tracking.uri={given}")) == len(f"tracking.uri={given}")


@pytest.mark.parametrize("uri", ADDRESSES[:2])
def test_no_traceback_shows_the_password(uri, tmp_path):
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
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")  # and _PASSWORD: MLflow's client reads them
    assert (stored.store_uri, stored.shown_uri) == ("http://h:5000", "http://***@h:5000")


def test_a_resume_and_a_confirmation_take_the_password_again_and_store_none(tmp_path):
    uri = f"http://ann:{WEB}@127.0.0.1:9"
    composed = ferhpo.compose("demo", [*TINY, f"output_dir={tmp_path}", f"tracking.uri={uri}"])
    create_sweep(composed)
    forget()
    sweep = resumed("demo", [f"output_dir={tmp_path}", f"tracking.uri={uri}"], "sweep")
    assert sweep.config["tracking"]["uri"] == "http://***@127.0.0.1:9"
    settings = TrackingSettings.from_config(sweep.config["tracking"], tmp_path)
    assert settings.store_uri == uri
    forget()
    config = json.loads((tmp_path / "demo" / META).read_text())["composed"]["config"]
    assert set_values(config, [f"tracking.uri={uri}"]) == []
    assert PASSWORD not in json.dumps(config)
    assert TrackingSettings.from_config(config["tracking"], tmp_path).store_uri == uri


def test_a_user_name_without_a_password_is_not_a_secret(tmp_path):
    """PostgreSQL's client reads the password from PGPASSWORD or ~/.pgpass."""
    settings = TrackingSettings(output_dir=tmp_path, uri="postgresql+psycopg2://ann@db/ml")
    assert settings.store_uri == settings.uri == "postgresql+psycopg2://ann@db/ml"
    assert TrackingSettings(output_dir=tmp_path, uri="sqlite:////a/b@c.db").store_uri == "sqlite:////a/b@c.db"


def test_an_address_with_unescaped_characters_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"tracking\.uri is http://\*\*\*@h; a password's special characters must be"):
        TrackingSettings(output_dir=tmp_path, uri="http://ann:a/b@h")


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the command line can be hidden on Linux only")
def test_the_command_line_of_a_process_does_not_show_the_password():
    program = (
        "from pathlib import Path; from ferhpo.addresses.secrets import hide_command_line as hide; import sys\n"
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
    """Run a command in a new process; return (exit status, output)."""
    command = [sys.executable, "-m", "ferhpo.cli", *map(str, arguments)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    )
    assert PASSWORD not in done.stdout, done.stdout
    return done.returncode, done.stdout


def refused(capsys, *arguments):
    """Run a command that ends with exit status 2 in a process that knows no password; return its output."""
    forget()
    assert cli.main([str(argument) for argument in arguments]) == 2
    output = "".join(capsys.readouterr())
    assert PASSWORD not in output
    return output


@pytest.mark.full
@pytest.mark.timeout(1500)
def test_real_sweeps_leave_no_password_anywhere(warm, tmp_path, capsys):
    """A server with basic authentication, over PostgreSQL with a password; then this PostgreSQL without the server."""
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
            assert "(error code 401); the server wants an account" in refused(capsys, *new, f"tracking.uri={proxy.url}")
            status, output = ferhpo_process(*new, f"tracking.uri={uri}")
            assert (status, "Registered ferhpo-demo version 1" in output) == (0, True), output
            message = (
                f"tracking.uri is http://***@127.0.0.1:{proxy.port}: its password is not stored on disk; give the full"
            )
            assert message in refused(capsys, *again)
            status, output = ferhpo_process(*again, f"tracking.uri={uri}")
            assert (status, "refused" in output) == (0, False), output
            assert message in refused(capsys, *sync)
            status, output = ferhpo_process(*sync, MLFLOW_TRACKING_URI=uri)
            assert (status, output.startswith("0 records uploaded")) == (0, True), output
            for verb in ("doctor", "runs"):
                assert cli.main([verb, "--output-dir", str(folder)]) == 0
            assert PASSWORD not in "".join(capsys.readouterr())
            assert_whole_in_mlflow(client_of(server.url, folder), ferhpo.load_sweep("demo", folder))
        # Another experiment: MLflow cannot write artifacts of a server's experiment without this server.
        direct = ["train", "demo", f"output_dir={folder}", *SWEEP, "tracking.experiment=direct"]
        status, output = ferhpo_process(*direct, "name=direct", f"tracking.uri={database.uri}")
        assert (status, "not in MLflow yet" in output) == (0, False), output
        assert_whole_in_mlflow(client_of(database.uri, folder), ferhpo.load_sweep("direct", folder), "direct")
        dump = database.dump()
        database.stop()
        output = refused(capsys, *direct, "name=away", f"tracking.uri={database.uri}")
        assert "no response within 5 s (connection refused); start the server" in output
    assert "ferhpo.trial" in dump
    assert PASSWORD not in dump
    assert files_with_password(folder) == []
    assert files_with_password(tmp_path / "server" / "artifacts") == []
    assert len(list(folder.rglob("*"))) > 20


def client_of(uri, folder):
    from ferhpo.tracking.store import connect

    trust_address("tracking.uri", uri)
    return connect(TrackingSettings(output_dir=folder, uri=uri))
