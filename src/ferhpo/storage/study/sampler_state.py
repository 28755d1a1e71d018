"""Store the state of CMA-ES in the study as numbers, because Optuna stores it as a pickle.

A pickle runs the code of whoever wrote it. Optuna's sampler gets the pickles that it expects, but only in memory and
only such that this process has made from numbers. Pickles in the journals of earlier versions are read without
importing or calling anything that they name.
"""

import io
import pickle
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ferhpo.errors import SweepError
from ferhpo.parse import PlainUnpickler, plain_opcodes

_STATE, _OPTIMIZER = "state", "optimizer"
_PREFIX = re.compile(r"(cma|sepcma|cmawm):")
_PICKLE = re.compile(r"(?:^|:)optimizer(?:$|:)")
_DTYPES = ("float64", "int64", "bool")
_OPTIONAL = ("_B", "_D", "_bounds")  # None in some generations
_CODES = {"f8": "float64", "i8": "int64", "b1": "bool"}


def without_pickle(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a trial as the journal stores them, with the sampler's pickle as numbers.

    Raises ValueError if a pickle is not one of Optuna's CMA-ES.
    """
    pickled: dict[str, dict[int, str]] = {}
    kept = {}
    for key, value in attrs.items():
        prefix, _, rest = key.partition(":")
        name, _, part = rest.partition(":")
        if _PREFIX.match(key) and name == _OPTIMIZER and part.isdecimal() and isinstance(value, str):
            pickled.setdefault(prefix, {})[int(part)] = value
        elif _PICKLE.search(key):
            raise ValueError(f"{key} is the state of a sampler as a pickle, which could run code when it is loaded")
        else:
            kept[key] = value
    for prefix, parts in pickled.items():
        kept[f"{prefix}:{_STATE}"] = _read_pickle(bytes.fromhex("".join(parts[number] for number in sorted(parts))))
    return kept


def with_pickle(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a trial as Optuna's sampler reads them; the reverse of `without_pickle`.

    Raises ValueError if a state is not one of this version of CMA-ES.
    """
    result = {}
    for key, value in without_pickle(attrs).items():
        prefix, _, rest = key.partition(":")
        if _PREFIX.match(key) and rest == _STATE:
            result[f"{prefix}:{_OPTIMIZER}:0"] = pickle.dumps(_optimizer(value)).hex()
        else:
            result[key] = value
    return result


def check_study_attrs(attrs: Mapping[str, Any]) -> None:
    """Raise SweepError if an attribute of the study may be a pickle."""
    for key in attrs:
        if _PICKLE.search(key):
            raise SweepError(f"the study's attribute {key} is a pickle, which ferhpo does not load; start a new sweep")


class _Object:
    """Stand in for an object in a pickle: keep what it was made of, and do nothing else."""

    name = ""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Cma(_Object):
    name = "CMA"

    def __new__(cls, *args: Any) -> "_Cma":
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made


class _SepCma(_Cma):
    name = "SepCMA"


class _CmaWithMargin(_Cma):
    name = "CMAwM"


class _Array(_Object):
    """Numpy's `_reconstruct`; its state has the shape and the bytes."""


class _Buffer(_Object):
    """Numpy's `_frombuffer` (bytes, dtype, shape, order)."""


class _Dtype(_Object):
    """`numpy.dtype` (code, ...); its state has the byte order."""


class _Scalar(_Object):
    """Numpy's `scalar` (dtype, bytes)."""


_STAND_INS: dict[str, type[_Object]] = {
    "cmaes._cma.CMA": _Cma,
    "cmaes._sepcma.SepCMA": _SepCma,
    "cmaes._cmawm.CMAwM": _CmaWithMargin,
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Object,
    **{f"numpy.{core}.multiarray._reconstruct": _Array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _Scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _Buffer for core in ("core", "_core")},
}


class _Reader(PlainUnpickler):
    dispatch = plain_opcodes(
        "PROTO", "FRAME", "EMPTY_DICT", "EMPTY_TUPLE", "MARK", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "SETITEM",
        "SETITEMS", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE",
        "NEWOBJ", "BUILD", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
        "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BYTEARRAY8", "STOP",
    )  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (stand_in := _STAND_INS.get(f"{module}.{name}")) is None:
            raise ValueError(f"it names {module}.{name}, which CMA-ES does not use")
        return stand_in


def _read_pickle(data: bytes) -> dict[str, Any]:
    try:
        return _plain_object(_Reader(io.BytesIO(data)).load(), len(data))
    except ValueError:
        raise
    except Exception as error:  # a pickle can be damaged in any way
        raise ValueError(f"the state of CMA-ES is damaged ({type(error).__name__}: {error})") from None


def _plain_object(made: Any, most: int) -> dict[str, Any]:
    """Return an optimizer as JSON. most: numbers in its arrays; the values of a pickle may share them"""
    if not isinstance(made, _Cma) or not isinstance(made.state, dict):
        raise ValueError(f"the state of CMA-ES is a {type(made).__name__}")
    values: dict[str, Any] = {}
    for key, value in made.state.items():
        is_core = isinstance(made, _CmaWithMargin) and key == "_cma" and type(value) is _Cma
        values[str(key)] = found = _plain_object(value, most) if is_core else _plain(value)
        most -= len(found["values"]) if isinstance(found, dict) else 0
        if most < 0:
            raise ValueError("the state of CMA-ES has more numbers than its pickle")
    return {"class": made.name, "values": values}


def _plain(value: Any) -> Any:
    """Return a value of the optimizer as JSON: a number, or an array with dtype and shape."""
    if value is None or isinstance(value, bool | int | float):
        return _shown(value)
    if isinstance(value, _Scalar):
        dtype, data = value.args
        return _array(dtype, (), "C", data)
    if isinstance(value, _Array):
        _, shape, dtype, is_fortran, data = value.state
        return _array(dtype, shape, "F" if is_fortran else "C", data)
    if isinstance(value, _Buffer):
        data, dtype, shape, order = value.args
        return _array(dtype, shape, order, data)
    raise ValueError(f"the state of CMA-ES has a {type(value).__name__} where a number belongs")


def _array(dtype: Any, shape: Any, order: Any, data: Any) -> dict[str, Any]:
    code, byte_order = dtype.args[0], dtype.state[1] if dtype.state else "|"
    if code not in _CODES or byte_order not in ("<", ">", "|", "=") or order not in ("C", "F"):
        raise ValueError(f"the state of CMA-ES has an array of {code!r:.20}")
    values = np.frombuffer(data, np.dtype(byte_order + code))
    if values.size != int(np.prod(shape)):
        raise ValueError("the state of CMA-ES has an array of another size than its shape")
    flat = [_shown(value) for value in values.tolist()]
    return {"dtype": _CODES[code], "shape": [int(size) for size in shape], "order": order, "values": flat}


def _shown(value: Any) -> Any:
    return value if not isinstance(value, float) or np.isfinite(value) else str(value)  # JSON has no infinity


def _number(value: Any) -> Any:
    if isinstance(value, str):
        return float(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError(f"the state of CMA-ES has {value!r:.40} where a number belongs")


def _value(value: Any) -> Any:
    if not isinstance(value, dict):
        return _number(value)
    if value["dtype"] not in _DTYPES or value["order"] not in ("C", "F"):
        raise ValueError(f"the state of CMA-ES has an array of {value['dtype']!r:.20}")
    array = np.array([_number(entry) for entry in value["values"]], dtype=value["dtype"])
    return array.reshape(value["shape"], order=value["order"]) if value["shape"] else array[0]


def _optimizer(plain: Mapping[str, Any]) -> Any:
    """Build the optimizer from its numbers. Raises ValueError if they are not those of a present one."""
    import cmaes

    try:
        entries = plain["values"].items()
        has_core = plain["class"] == "CMAwM" and plain["values"]["_cma"]["class"] == "CMA"
        values = {key: _optimizer(value) if has_core and key == "_cma" else _value(value) for key, value in entries}
        core = vars(values["_cma"]) if has_core else values
        num_dims, size = core["_mean"].size, int(core["_popsize"])
        # The new optimizer below has a number for each pair of dimensions; so must the file.
        if plain["class"] == "CMA" and np.shape(core["_c_1d"]) != (num_dims * (num_dims + 1) // 2,):
            raise ValueError(f"the state of CMA-ES has {num_dims} dimensions, but not the covariances of so many")
        if any(entry["_n_max_resampling"] > 100 * (num_dims + 1) for entry in (values, core)):
            raise ValueError("the state of CMA-ES draws a sample again and again")
        if size > 2 * core["_weights"].size + 1:  # an optimizer with a million of them would not fit in memory
            raise ValueError(f"the state of CMA-ES has a population of {size}")
        bounds = np.array([[0.0, 1.0]] * num_dims)
        options = {"mean": np.full(num_dims, 0.5), "sigma": 0.1, "bounds": bounds, "population_size": size}
        if plain["class"] == "CMAwM":
            steps = np.zeros(num_dims)
            steps[values["_discrete_idx"]] = 0.1
            made = cmaes.CMAwM(**options, steps=steps)
        else:
            made = {"CMA": cmaes.CMA, "SepCMA": cmaes.SepCMA}[plain["class"]](**options)
        _check_alike(values, made)
    except (KeyError, TypeError, AttributeError, IndexError, AssertionError, OverflowError) as error:
        raise ValueError(f"the state of CMA-ES is damaged ({type(error).__name__}: {error})") from None
    if plain["class"] == "CMAwM":
        vars(made).update(values)
    else:
        made.__setstate__(values)
    return made


def _check_alike(values: Mapping[str, Any], made: Any) -> None:
    """Raise ValueError if values of an optimizer differ in name, kind or shape from those of a new one."""
    expected = made.__getstate__() if type(made).__name__ != "CMAwM" else vars(made)
    if different := set(expected) ^ set(values):
        raise ValueError(f"the state of CMA-ES is of another version of cmaes: {', '.join(sorted(different))}")
    for key, value in values.items():
        like = expected[key]
        is_optional = key in _OPTIONAL and (value is None or like is None)
        if not is_optional and (value is None or np.shape(value) != np.shape(like)):
            raise ValueError(f"the state of CMA-ES has {key} of shape {np.shape(value)}, not {np.shape(like)}")
