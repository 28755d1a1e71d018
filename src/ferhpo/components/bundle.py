"""The concatenation of modules of ferhpo and of the user into one source file that imports neither.

Note: a registered model must run without ferhpo and with the code of its own version. Modules imported by name would be
shared by all models of a process, so a model has one file. A module of an installed package is imported, not copied.
"""

import ast
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ferhpo import models
from ferhpo.components import own_code
from ferhpo.components.build import locate

RULE = "write `from {} import name` at the top level, so that this file can be copied into a model"


SERVED_MODEL, HOG = "ferhpo.inference.served_model", "ferhpo.data.features.hog"
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}  # of packages that most models import
ENSEMBLE = "ferhpo.models.ensemble.Ensemble"  # of networks, each described in model.json as a single one is


def model_source(description: Mapping[str, Any]) -> str:
    """Return the code of an exported model, which is generated when it is needed and never read from a file.

    description: the content of model.json
    Raises ValueError if its network is not accepted (see build.locate), BundleError if its code cannot be copied.
    """
    members = members_of(description)
    targets = [target_of(member["network"]) for member in members]
    for target in targets:
        locate(target, "model")
    parts = [target.rpartition(".") for target in dict.fromkeys(targets)]
    copied = [module for module, _, _ in parts if _is_copied(module)]
    imports = [f"from {module} import {name}\n" for module, _, name in parts if not _is_copied(module)]
    ensemble = [ENSEMBLE.rpartition(".")[0]] if "members" in description else []
    source = bundle([*dict.fromkeys(copied), *([HOG] if description.get("hog") else []), *ensemble, SERVED_MODEL])
    return f"{''.join(imports)}\n{source}" if imports else source


def members_of(description: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the descriptions of the networks of an exported model: one, or those of an ensemble."""
    found: list[Mapping[str, Any]] = description.get("members") or [description]
    return found


def target_of(network: Mapping[str, Any]) -> str:
    """Return the `_target_` of a network in model.json. Files of earlier versions have only the name of the class.

    Raises ValueError if ferhpo has no network of that name.
    """
    if "target" in network:
        return str(network["target"])
    for found in pkgutil.iter_modules(models.__path__, "ferhpo.models."):
        if network["name"] in _defined_names(ast.parse(_source(found.name))):
            return f"{found.name}.{network['name']}"
    raise ValueError(f"model.json names the network {network['name']}, which ferhpo.models does not have")


class BundleError(ValueError):
    """A module cannot be copied into a model."""


def bundle(modules: Sequence[str]) -> str:
    """Return the source of `modules`, in their order and each after the copied modules it imports, as one file.

    Modules of ferhpo and the user's own files (own_code.is_file) are copied. Raises BundleError if one is imported
    otherwise than by `from module import name [as other]` at the top level, and if two of them define the same name.
    """
    parts: dict[str, str] = {}
    owners: dict[str, str] = {}
    for module in modules:
        _add(module, parts, owners)
    return "\n\n".join(f"# ---- {name}\n{source}" for name, source in parts.items()) + "\n"


def requirements(code: str) -> list[str]:
    """Return the distributions of the packages that a model's code imports."""
    found = {"mlflow"}
    for node in ast.walk(ast.parse(code)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        for package in {name.partition(".")[0] for name in modules} - sys.stdlib_module_names:
            name = _DISTRIBUTIONS.get(package, package)
            try:
                found.add(distribution(name).name)
            except PackageNotFoundError:  # looking through all of them takes half a second
                found |= set(own_code.distributions().get(package, [])[:1])
    return sorted(found)


def _add(module: str, parts: dict[str, str], owners: dict[str, str]) -> None:
    if module in parts:
        return
    source = _source(module)
    tree = ast.parse(source)
    lines = source.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _is_copied(alias.name):
                    raise BundleError(
                        f"{module}, line {node.lineno}: {RULE.format(alias.name)}, not `{ast.unparse(node)}`"
                    )
        if not isinstance(node, ast.ImportFrom):
            continue
        name = node.module or ""
        if node.level:
            raise BundleError(f"{module}, line {node.lineno}: {RULE.format('package.module')}, without leading dots")
        if not _is_copied(name) and name != "__future__":
            continue
        if node not in tree.body or any(alias.name == "*" for alias in node.names) or name == "ferhpo":
            rule = RULE.format(name if name != "ferhpo" else "ferhpo.x")
            raise BundleError(f"{module}, line {node.lineno}: {rule}, not `{ast.unparse(node)}`")
        if name != "__future__":
            _add(name, parts, owners)
        assert node.end_lineno is not None
        for i in range(node.lineno - 1, node.end_lineno):
            lines[i] = ""
        renamed = [alias for alias in node.names if alias.asname not in (None, alias.name)]
        lines[node.lineno - 1] = "; ".join(f"{alias.asname} = {alias.name}" for alias in renamed)
        for alias in renamed:
            _own(str(alias.asname), f"{name}.{alias.name}", owners)
    for name in _defined_names(tree):
        _own(name, module, owners)
    parts[module] = "\n".join(lines).strip()


def _own(name: str, owner: str, owners: dict[str, str]) -> None:
    """Note who defines a name. Raises BundleError if two do."""
    if owners.setdefault(name, owner) != owner:
        raise BundleError(f"{owner} and {owners[name]} both define {name}; rename one, so that both can be copied")


def _source(module: str) -> str:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise BundleError(f"{module} has no source file, so it cannot be copied into a model")
    return Path(spec.origin).read_text(encoding="utf-8")


def _is_copied(module: str) -> bool:
    return module.partition(".")[0] == "ferhpo" or own_code.is_file(module)


def _defined_names(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return names
