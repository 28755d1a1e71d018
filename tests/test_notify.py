"""`--notify URL`: what a webhook is told, and that it never delays or fails a command."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ferhpo import cli
from ferhpo.cli.verbs import notify
from ferhpo.cli.verbs.notify import Notice
from ferhpo.errors import ConfigError
from ferhpo.promotion.promote import Promotion
from tests.conftest import TINY


@pytest.fixture
def webhook():
    """A server that keeps what it is told; it answers with the statuses in `answers`, then with 200."""
    told, answers = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status = answers.pop(0) if answers else 200
            if status == "late":
                time.sleep(3)
                status = 200
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.told, server.answers, server.url = told, answers, f"http://127.0.0.1:{server.server_port}/hook?token=secret"
    yield server
    server.shutdown()
    server.server_close()


def test_a_message_is_json_with_a_sentence(webhook):
    Notice(webhook.url, "event", "It happened.", {"number": 3}).wait()
    assert webhook.told == [{"event": "event", "text": "It happened.", "number": 3}]


def test_it_is_tried_again(webhook, monkeypatch, capsys):
    monkeypatch.setattr(notify, "PAUSE_SECONDS", 0.01)
    webhook.answers += [500, 503]
    Notice(webhook.url, "event", "", {}).wait()
    assert len(webhook.told) == 3
    assert capsys.readouterr().err == ""


def test_one_that_refuses_is_named_without_its_secret(webhook, monkeypatch, capsys):
    monkeypatch.setattr(notify, "PAUSE_SECONDS", 0.01)
    webhook.answers += [404] * 9
    Notice(webhook.url, "event", "", {}).wait()
    shown = capsys.readouterr().err
    assert "was not told: it answers 404" in shown
    assert "secret" not in shown


def test_one_that_does_not_answer_delays_nothing_for_long(webhook, monkeypatch, capsys):
    monkeypatch.setattr(notify, "WAIT_SECONDS", 0.2)
    webhook.answers += ["late"]
    start = time.monotonic()
    Notice(webhook.url, "event", "", {}).wait()
    assert time.monotonic() - start < 1.5
    assert "does not answer" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_named(monkeypatch, capsys):
    monkeypatch.setattr(notify, "PAUSE_SECONDS", 0.01)
    Notice("http://127.0.0.1:9/hook", "event", "", {}).wait()
    assert "http://127.0.0.1:9/... was not told" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["file:///etc/passwd", "hook", "ftp://a/b"])
@pytest.mark.parametrize("verb", [["sweep", "demo"], ["promote", "demo"], ["rollback", "demo"]], ids=str)
def test_only_web_addresses_are_told(url, verb, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*verb, "--notify", url]) == 2
    assert "it must be an address, http://... or https://..." in capsys.readouterr().err


def test_a_training_and_its_promotion_are_told(webhook, tmp_path, monkeypatch):
    options = [*TINY, f"output_dir={tmp_path}", "tracking=none", "trainer.max_epochs=1"]
    assert cli.main(["train", "demo", *options, "--notify", webhook.url]) == 0
    (told,) = webhook.told
    assert told["event"] == "sweep_ended"
    assert told["text"].startswith("Sweep demo ended, best: trial 0 with val_acc ")
    assert (told["finished"], told["best_trial"], told["trials"]) == (True, 0, {"COMPLETE": 1})
    moved = Promotion("ferhpo-demo", "champion", 2, 1)
    monkeypatch.setattr("ferhpo.promote", lambda *_, **__: moved)
    assert cli.main(["promote", "demo", "--output-dir", str(tmp_path), "--notify", webhook.url]) == 0
    assert webhook.told[1]["text"] == "ferhpo-demo@champion is now version 2 (previously version 1)."


def test_an_error_that_ends_a_sweep_is_told(webhook, tmp_path):
    assert cli.main(["train", "demo", f"output_dir={tmp_path}", "optim.lr=-1", "--notify", webhook.url]) == 2
    (told,) = webhook.told
    assert told["event"] == "sweep_failed"
    assert told["text"].startswith("Sweep demo ended with an error: ")


@pytest.mark.parametrize("answer", [b"garbage \x1b[31m\r\n\r\n", b"", b"HTTP/1.1 abc\r\n\r\n"])
def test_a_server_that_answers_nonsense_is_named_without_its_path(answer, capsys, monkeypatch):
    """The path of a webhook is a password: whoever has it may write to the channel."""
    import socket
    import threading

    monkeypatch.setattr(notify, "PAUSE_SECONDS", 0.01)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    def serve():
        for _ in range(notify.TRIES):
            connection, _ = listening.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    notify.Notice(f"http://127.0.0.1:{port}/services/T0/secret", "sweep_ended", "x", {}).wait()
    thread.join(10)
    listening.close()
    output = capsys.readouterr()
    assert f"--notify: http://127.0.0.1:{port}/... was not told: " in output.err
    assert "secret" not in output.err
    assert "\x1b" not in output.err
    assert "Traceback" not in output.err


@pytest.mark.parametrize("url", ["ftp://x/y", "http://a b/x", "http://", "https:///x", "http://x/\n", "x"])
def test_what_is_no_webhook_is_refused_at_once(url):
    with pytest.raises(ConfigError, match=r"it must be an address, http://\.\.\. or https://\.\.\., without spaces"):
        notify.check_url(url)


def test_the_text_has_no_links_or_calls_and_the_facts_are_json(monkeypatch):
    monkeypatch.setattr(notify.Notice, "_post", lambda self: None)
    notice = notify.Notice("http://x/y", "e", "class <!channel> & <http://x|y>", {"value": float("nan"), "n": [1.0]})
    found = json.loads(notice.content)
    assert found == {"event": "e", "text": "class &lt;!channel&gt; &amp; &lt;http://x|y&gt;", "value": None, "n": [1.0]}
    assert b"NaN" not in notice.content
