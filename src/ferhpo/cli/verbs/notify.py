"""Post what happened to a webhook (`--notify URL`): the end of a sweep, a promotion. It never delays a command long.

The message is JSON: `event`, `text` (a sentence, which chat programs show) and facts. Posting runs in a thread; the
command waits for it at its end, at most WAIT_SECONDS.
"""

import json
import math
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from ferhpo.addresses.secrets import redact_address
from ferhpo.cli.screen.console import say
from ferhpo.errors import ConfigError, FerhpoError, first_line, printable

TRIES, PAUSE_SECONDS, TIMEOUT_SECONDS, WAIT_SECONDS = 4, 1.0, 5.0, 15.0


class Notice:
    """A message on its way to a webhook."""

    def __init__(self, url: str, event: str, text: str, facts: Mapping[str, Any]) -> None:
        self.url = url
        # Chat programs take <...> for links and calls.
        shown = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        self.content = json.dumps(_finite({"event": event, "text": shown, **facts}), default=str).encode()
        self.error = ""
        self._thread = threading.Thread(target=self._post, name="notify", daemon=True)
        self._thread.start()

    def _post(self) -> None:
        for number in range(TRIES):
            self.error = self._try()
            if not self.error:
                return
            time.sleep(PAUSE_SECONDS * 2**number)

    def _try(self) -> str:
        import urllib.error
        import urllib.request  # which `ferhpo --help` does not need

        request = urllib.request.Request(self.url, self.content, {"Content-Type": "application/json"}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
                return ""
        except urllib.error.HTTPError as error:
            return f"it answers {error.code}"
        except Exception as error:  # also of a server that answers nonsense; its text may have the address
            return printable(str(getattr(error, "reason", error)).replace(self.url, "the address"))[:200]

    def wait(self) -> None:
        """Wait for the message at the end of a command, and say if it could not be posted."""
        self._thread.join(WAIT_SECONDS)
        if self._thread.is_alive() and not self.error:
            self.error = "it does not answer"
        if self.error:
            say(f"--notify: {_shown(self.url)} was not told: {self.error}", error=True)


def _shown(url: str) -> str:
    """Return the server of a webhook: its path is a password, at Slack, Discord and Teams."""
    parts = urlsplit(redact_address(url))
    return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/...")


def _finite(value: Any) -> Any:
    """Return facts with null for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_url(url: str | None) -> None:
    """Raise ConfigError for an address that is not a webhook's, before anything is run."""
    if url is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", url):
        raise ConfigError("--notify", ["it must be an address, http://... or https://..., without spaces"])


@contextmanager
def telling_failure(url: str | None, name: str) -> Iterator[None]:
    """Tell a webhook of an error that ends a sweep."""
    try:
        yield
    except FerhpoError as error:
        if url is not None:
            text = f"Sweep {name} ended with an error: {first_line(error)}"
            Notice(url, "sweep_failed", text, {"sweep": name, "error": str(error)}).wait()
        raise


def sweep_ended(url: str | None, result: Any) -> Notice | None:
    """Tell a webhook how a sweep ended."""
    if url is None:
        return None
    sweep, best = result.sweep, result.best
    how = "ended" if result.finished else "was stopped"
    metric = sweep.objective.metric
    found = "" if best is None else f", best: trial {best.number} with {metric} {best.value:.4f}"
    facts = {
        "sweep": sweep.name,
        "finished": result.finished,
        "trials": {str(state): count for state, count in result.counts.items()},
        "metric": metric,
        "best_trial": None if best is None else best.number,
        "best_value": None if best is None else best.value,
        "registered": result.registered,
    }
    return Notice(url, "sweep_ended", f"Sweep {sweep.name} {how}{found}.", facts)


def alias_moved(url: str | None, promotion: Any) -> Notice | None:
    """Tell a webhook of a promotion or a rollback."""
    if url is None:
        return None
    before = "" if promotion.previous is None else f" (previously version {promotion.previous})"
    text = f"{promotion.name}@{promotion.alias} is now version {promotion.version}{before}."
    facts = {key: getattr(promotion, key) for key in ("name", "alias", "version", "previous", "forced")}
    return Notice(url, "alias_moved", text, facts)
