"""The search space: a partial copy of the configuration with draws where values stand.

    space:
      model:
        num_blocks:     {low: 1, high: 4}
        block_channels: {low: 64, high: 512, step: 64, repeat: model.num_blocks}
        norm:           {choices: [batch, none]}
      optim:
        options: [sgd, adam]                    # chooses among conf/optim, each with its own slice
        lr:       {low: 1.0e-4, high: 0.1, log: true}
        momentum: {low: 0.8, high: 0.99, when: {optim: sgd}}

A draw is an integer when both bounds are integers. `when` takes a key and a value or a list of values; a key is a
configuration path, another draw, or a group (`optim`) whose option is meant. `repeat` makes a list, one draw an entry,
called `model.block_channels.0`, `.1`, ... An entry that is null takes no part.

A sample is a flat dictionary from dotted path to value. What a reader would get wrong: Optuna's parameter is called by
the path too, except where two options of a group draw the same path; there it is `path@option`.
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
MOST_CASES = 1000  # of a draw that others depend on, gone through one by one; also the most that one may be repeated


@dataclass(frozen=True)
class Space:
    """A compiled space.

    config: the configuration that it mirrors
    groups: the option that each configuration group stands at
    options: for each group that the space chooses among, the section of each option
    """

    draws: tuple[Draw, ...]
    config: Mapping[str, Any]
    groups: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def lookup(self, key: str, sample: Mapping[str, Any]) -> Any:
        """What `key` stands at when `sample` has been applied: a draw, a group's option, or a configured value."""
        if key in sample:
            return sample[key]
        if key in self.groups:
            return self.groups[key]
        section, _, rest = key.partition(".")
        if section in self.options and section in sample:
            return get_path(self.options[section][sample[section]], rest)
        return get_path(self.config, key)

    def is_active(self, draw: Draw, sample: Mapping[str, Any]) -> bool:
        try:
            return all(self.lookup(key, sample) in allowed for key, allowed in draw.when)
        except KeyError:  # a key that the chosen option lacks has none of the values
            return False

    def num_repeats(self, draw: Draw, sample: Mapping[str, Any]) -> int | None:
        """How many entries a repeated draw has; None for a single one."""
        if draw.repeat is None:
            return None
        return int(draw.repeat if isinstance(draw.repeat, int) else self.lookup(draw.repeat, sample))

    def suggest(self, trial: "optuna.trial.BaseTrial") -> Sample:
        """Draw a sample from an Optuna trial (define-by-run)."""
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
        """The configuration with the values of `sample` in their places."""
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
            if parent in repeated and last.isdigit():
                lists.setdefault(parent, []).append(value)
            else:
                set_path(config, path, value)
        for path, values in lists.items():
            set_path(config, path, values)
        return config

    @property
    def is_conditional(self) -> bool:
        return any(draw.when or isinstance(draw.repeat, str) for draw in self.draws)

    def size(self) -> tuple[int, int]:
        """(number of points of the discrete part, number of continuous draws; 0 means the space is finite).

        Only draws that others depend on are enumerated; the rest multiply.
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
        """Values of a draw that others depend on; where they look at few of many, one stands for all the others."""
        assert draw.num_points is not None
        if draw.num_points <= MOST_CASES:
            yield from ((value, 1) for value in draw.values())
            return
        named = [value for other in self.draws for key, allowed in other.when if key == draw.path for value in allowed]
        known = [value for place, value in enumerate(named) if draw.holds(value) and value not in named[:place]]
        yield from ((value, 1) for value in known)
        yield next(value for value in draw.values() if value not in known), draw.num_points - len(known)

    def grid(self) -> dict[str, list[Any]]:
        """Every value of every draw by Optuna's name, for a grid sampler.

        Raises ValueError for a continuous draw, which has no grid.
        """
        axes: dict[str, list[Any]] = {}
        for draw in self.draws:
            if draw.num_points is None:
                raise ValueError(f"space.{draw.path} is continuous, and a grid needs points; give it a step or choices")
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
