"""Post what happened to a webhook (`--notify URL`): the end of a sweep, a promotion. It never delays a command long.

The message is JSON: `event`, `text` (a sentence, which chat programs show) and facts. Posting runs in a thread; the
command waits for it at its end, at most WAIT_SECONDS.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ferhpo.addresses.secrets import redact_address
from ferhpo.cli.screen.console import say
from ferhpo.errors import ConfigError, FerhpoError, first_line

TRIES, PAUSE_SECONDS, TIMEOUT_SECONDS, WAIT_SECONDS = 4, 1.0, 5.0, 15.0


class Notice:
    """A message on its way to a webhook."""

    def __init__(self, url: str, event: str, text: str, facts: Mapping[str, Any]) -> None:
        self.url = url
        self.content = json.dumps({"event": event, "text": text, **facts}, default=str).encode()
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
        except (OSError, ValueError) as error:
            return str(getattr(error, "reason", error))

    def wait(self) -> None:
        """Wait for the message at the end of a command, and say if it could not be posted."""
        self._thread.join(WAIT_SECONDS)
        if self._thread.is_alive() and not self.error:
            self.error = "it does not answer"
        if self.error:
            say(f"--notify: {redact_address(self.url)} was not told: {self.error}", error=True)


def check_url(url: str | None) -> None:
    """Raise ConfigError for an address that is not a webhook's, before anything is run."""
    if url is not None and not url.startswith(("http://", "https://")):
        raise ConfigError(
            "--notify", [f"it is {redact_address(url)!r}; it must be an address, http://... or https://..."]
        )


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
