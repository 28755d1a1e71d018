"""The search space: a partial copy of the configuration, with draws in place of values.

    space:
      model:
        num_blocks:     {low: 1, high: 4}
        block_channels: {low: 64, high: 512, step: 64, repeat: model.num_blocks}
        norm:           {choices: [batch, none]}
      optim:
        options: [sgd, adam]                    # choose among options of conf/optim, each with its own slice
        lr:       {low: 1.0e-4, high: 0.1, log: true}
        momentum: {low: 0.8, high: 0.99, when: {optim: sgd}}

A draw is an integer if both bounds are integers. `when` maps keys to a value or a list of values; the draw is active if
all keys match. A key is a path of the configuration, another draw, or a config group (`optim`), whose value is the
chosen option. `repeat` makes a list with one draw per entry, named `model.block_channels.0`, `.1`, ... An entry that is
null is ignored.

A sample is a flat dictionary from dotted path to value. Note: the path is also the name of the parameter in Optuna,
unless several options of a group draw the same path; then the name is `path@option`.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ferhpo.keys import get_path, set_path
from ferhpo.space.draw import Draw, choice_key

if TYPE_CHECKING:
    import optuna


Sample = dict[str, Any]
MOST_CASES = 1000  # values of a draw that others depend on, which are enumerated; also the limit of `repeat`


@dataclass(frozen=True)
class Space:
    """A compiled space.

    config: the configuration whose values the space draws
    groups: the chosen option of each config group
    options: for each group whose option the space chooses, the section of each option
    """

    draws: tuple[Draw, ...]
    config: Mapping[str, Any]
    groups: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def lookup(self, key: str, sample: Mapping[str, Any]) -> Any:
        """Return the value of `key` with `sample` applied: a drawn value, a group's option, or a configured value."""
        if key in sample:
            return sample[key]
        if key in self.groups:
            return self.groups[key]
        section, _, rest = key.partition(".")
        if section in self.options and section in sample:
            return get_path(self.options[section][sample[section]], rest)
        return get_path(self.config, key)

    def is_active(self, draw: Draw, sample: Mapping[str, Any]) -> bool:
        """Return whether the conditions (`when`) of a draw hold."""
        try:
            return all(self.lookup(key, sample) in allowed for key, allowed in draw.when)
        except KeyError:  # the chosen option does not have the key
            return False

    def num_repeats(self, draw: Draw, sample: Mapping[str, Any]) -> int | None:
        """Return how many entries a repeated draw has; None for a draw without `repeat`."""
        if draw.repeat is None:
            return None
        return int(draw.repeat if isinstance(draw.repeat, int) else self.lookup(draw.repeat, sample))

    def suggest(self, trial: "optuna.trial.BaseTrial") -> Sample:
        """Return the sample that an Optuna trial suggests, draw by draw (define-by-run)."""
        sample: Sample = {}
        for draw in self.draws:
            if not self.is_active(draw, sample):
                continue
            repeats = self.num_repeats(draw, sample)
            if repeats is None:
                sample[draw.path] = draw.suggest(trial, draw.name)
            else:
                for index in range(repeats):
                    sample[f"{draw.path}.{index}"] = draw.suggest(trial, f"{draw.name}.{index}")
        return sample

    def apply(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of the configuration with the values of `sample`."""
        config = copy.deepcopy(dict(self.config))
        for group in self.options:
            if group in sample:
                config[group] = copy.deepcopy(self.options[group][sample[group]])
        lists: dict[str, list[Any]] = {}
        repeated = {draw.path for draw in self.draws if draw.repeat is not None}
        for path, value in sample.items():
            parent, _, last = path.rpartition(".")
            if path in self.options:
                continue
            if parent in repeated and last.isdecimal():
                lists.setdefault(parent, []).append(value)
            else:
                set_path(config, path, value)
        for path, values in lists.items():
            set_path(config, path, values)
        return config

    @property
    def is_conditional(self) -> bool:
        """Whether a draw depends on another one or on a config group."""
        return any(draw.when or isinstance(draw.repeat, str) for draw in self.draws)

    def size(self) -> tuple[int, int]:
        """Return (number of points of the discrete part, number of continuous draws). A finite space has none of those.

        Only draws that others depend on are enumerated; the other counts are multiplied.
        """
        controls = {key for draw in self.draws for key, _ in draw.when}
        controls |= {draw.repeat for draw in self.draws if isinstance(draw.repeat, str)}
        order = [draw for draw in self.draws if draw.path in controls]
        rest = [draw for draw in self.draws if draw.path not in controls]

        def count(index: int, sample: Sample) -> int:
            if index < len(order):
                draw = order[index]
                if not self.is_active(draw, sample):
                    return count(index + 1, sample)
                return sum(
                    number * count(index + 1, {**sample, draw.path: value}) for value, number in self._cases(draw)
                )
            product = 1
            for draw in rest:
                if draw.num_points is not None and self.is_active(draw, sample):
                    repeats = self.num_repeats(draw, sample)
                    product *= draw.num_points ** (1 if repeats is None else repeats)
            return product

        return count(0, {}), sum(draw.num_points is None for draw in self.draws)

    def _cases(self, draw: Draw) -> Iterator[tuple[Any, int]]:
        """Yield (value, how many values it represents) of a draw that others depend on.

        Of very many values, those that no condition mentions are represented by one of them.
        """
        assert draw.num_points is not None
        if draw.num_points <= MOST_CASES:
            yield from ((value, 1) for value in draw.values())
            return
        named = [value for other in self.draws for key, allowed in other.when if key == draw.path for value in allowed]
        known = [value for place, value in enumerate(named) if draw.holds(value) and value not in named[:place]]
        yield from ((value, 1) for value in known)
        yield next(value for value in draw.values() if value not in known), draw.num_points - len(known)

    def grid(self) -> dict[str, list[Any]]:
        """Return every value of every draw by its name in Optuna, for a grid sampler.

        Raises ValueError for a continuous draw.
        """
        axes: dict[str, list[Any]] = {}
        for draw in self.draws:
            if draw.num_points is None:
                raise ValueError(
                    f"space.{draw.path} is continuous; a grid requires discrete draws; add a step or choices"
                )
            longest = self._most_repeats(draw)
            values = [choice_key(value) for value in draw.values()]
            names = [draw.name] if longest is None else [f"{draw.name}.{index}" for index in range(longest)]
            axes.update(dict.fromkeys(names, values))
        return axes

    def _most_repeats(self, draw: Draw) -> int | None:
        if draw.repeat is None or isinstance(draw.repeat, int):
            return draw.repeat
        for other in self.draws:
            if other.path == draw.repeat:
                return int(max(other.values()))
        return int(self.lookup(draw.repeat, {}))
