"""Read configuration files and overrides, once and for all: what is checked and what Hydra composes is the same.

Two parsers of YAML can find other keys in a text; an invisible character is enough. So Hydra opens no file itself.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from ferhpo.config.files import MOST_BYTES
from ferhpo.config.input.overrides import as_text, literal, parse_fault, size_fault
from ferhpo.disk import read_file
from ferhpo.errors import ConfigError
from ferhpo.parse import ParseError, parse_yaml

_PACKAGE = re.compile(r"_global_|[A-Za-z]\w*(\.\w+)*")  # Hydra would take [tracking] for tracking


@contextmanager
def checked_files() -> Iterator[None]:
    """Give the Hydra that is initialized inside the content of each file as `load_yaml` reads it."""
    from hydra._internal.core_plugins.file_config_source import FileConfigSource
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins
    from hydra.plugins.config_source import ConfigLoadError, ConfigResult
    from omegaconf import OmegaConf

    class Checked(FileConfigSource):
        def load_config(self, config_path: str) -> ConfigResult:
            file = Path(self.path, self._normalize_file_name(config_path))
            if not file.exists():
                raise ConfigLoadError(f"Config not found : {file}")
            content, header = _read(file)
            config = OmegaConf.create({} if content is None else content)
            return ConfigResult(provider=self.provider, path=f"file://{self.path}", config=config, header=header)

    Plugins.instance()  # registers Hydra's own sources, once
    types = SourcesRegistry.instance().types
    before = types["file"]
    types["file"] = Checked
    try:
        yield
    finally:
        types["file"] = before


def merged(contents: Iterable[Any]) -> Any:
    """Return what Hydra makes of the contents of files, each after the one before; unresolved."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.merge(*contents))


def load_yaml(file: Path) -> Any:
    """Return the content of a YAML file. Raises ConfigError if it is not valid, or too large with aliases expanded."""
    return _read(file)[0]


def _read(file: Path) -> tuple[Any, dict[str, str | None]]:
    """Return the content of a YAML file, as Hydra must see it too, and its header, e.g. {"package": "_global_"}.

    Raises ConfigError.
    """
    from hydra.plugins.config_source import ConfigSource

    try:
        if not file.is_file():
            raise ConfigError(str(file), ["it is not a regular file; give the file itself"])
        if file.stat().st_size > MOST_BYTES:
            raise ConfigError(str(file), [f"it is larger than {MOST_BYTES:,} bytes, the limit of a configuration file"])
        text = read_file(file, MOST_BYTES).decode("utf-8-sig")
        if place := re.search("[\ufeff\x85\u2028\u2029]", text):
            line = text.count("\n", 0, place.start()) + 1
            fault = f"line {line} has the invisible character U+{ord(place[0]):04X}; remove it"
            raise ConfigError(str(file), [fault])
        try:
            header: dict[str, str | None] = ConfigSource._get_header_dict(text[:512])
        except ValueError as error:
            raise ConfigError(str(file), [f"its header is damaged ({error})"]) from None
        package = header.get("package")
        if package is not None and not _PACKAGE.fullmatch(package):
            raise ConfigError(
                str(file), [f"its header is @package {package}; write _global_, or keys with dots, or none"]
            )
        content = parse_yaml(text, _like_omegaconf)
        if faults := list(_key_faults(content)):
            raise ConfigError(str(file), faults)
        return content, header
    except UnicodeDecodeError as error:
        raise ConfigError(
            str(file), [f"it is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"]
        ) from None
    except OSError as error:
        raise ConfigError(
            str(file), [f"it cannot be read ({error.strerror}); check the file and its permissions"]
        ) from None
    except ParseError as error:
        raise ConfigError(str(file), [str(error)]) from None


def _key_faults(content: Any, above: str = "") -> Iterator[str]:
    """Yield the faults of keys that a dotted path cannot name: it would mean another one."""
    if isinstance(content, list):
        for place, item in enumerate(content):
            yield from _key_faults(item, f"{above}.{place}".lstrip("."))
    for key, value in content.items() if isinstance(content, dict) else ():
        # {optim.lr: 0.1} is a condition, or a sample.
        of_draws = above.rpartition(".")[2] == "when" or re.fullmatch(r"first\.\d+", above) is not None
        if isinstance(key, bool) or not isinstance(key, str | int | float):
            yield f"{above or 'it'} has the key {key!r:.60}; a key must be a text or a number"
        elif not of_draws and not re.fullmatch(r"[^.\[\]\s]([^.\[\]]*[^.\[\]\s])?", str(key)):
            yield (
                f"{above or 'it'} has the key {key!r:.60}; a key must not be empty, begin or end with a space, or "
                "contain . [ ]; write sections inside each other"
            )
        yield from _key_faults(value, f"{above}.{key}".lstrip("."))


def parse(text: str) -> Any:
    """Return an override, as Hydra parses it; a value that its grammar refuses is a text. Raises ValueError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if fault := size_fault(text):
        raise ValueError(fault)
    for tried in filter(None, (literal(text), as_text(text))):
        with suppress(HydraException, RecursionError):
            return OverridesParser.create().parse_override(tried)
    raise ValueError(parse_fault(text))


@cache
def _like_omegaconf(base: Any) -> Any:
    """Return a loader that reads a text into the values that OmegaConf's own loader, which is in Python, returns."""
    from omegaconf._utils import get_yaml_loader
    from yaml.constructor import ConstructorError

    class Loader(base):  # type: ignore[misc]
        yaml_implicit_resolvers = get_yaml_loader().yaml_implicit_resolvers

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if not isinstance(key.value, str):
                    raise ConstructorError(None, None, "a key must be a text or a number", key.start_mark)
                if key.tag == "tag:yaml.org,2002:str" and key.value in seen:
                    raise ConstructorError(None, None, f"found duplicate key {key.value}", key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep=deep)

    return Loader
