"""The concatenation of modules of ferhpo into one source file that does not import ferhpo.

Note: a registered model must run without ferhpo and with the code of its own version. Modules imported by name would be
shared by all models of a process, so a model has one file.
"""

import ast
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

RULE = "write `from ferhpo.x import name` at the top level, so that this file can be copied into a model"


def bundle(modules: Sequence[str]) -> str:
    """Return the source of `modules`, in their order and each after the ferhpo modules it imports, as one file.

    Raises ValueError for an import of ferhpo other than `from ferhpo.x import name` at the top level, and if two
    modules define the same name.
    """
    parts: dict[str, str] = {}
    owners: dict[str, str] = {}
    for module in modules:
        _add(module, parts, owners)
    return "\n\n".join(f"# ---- {name}\n{source}" for name, source in parts.items()) + "\n"


def _add(module: str, parts: dict[str, str], owners: dict[str, str]) -> None:
    if module in parts:
        return
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"{module} has no source file, so it cannot be copied into a model")
    source = Path(spec.origin).read_text()
    tree = ast.parse(source)
    lines = source.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "ferhpo" for alias in node.names):
            raise ValueError(f"{module}, line {node.lineno}: {RULE}")
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] not in ("ferhpo", "__future__"):
            continue
        if node not in tree.body or any(alias.asname for alias in node.names) or node.module == "ferhpo":
            raise ValueError(f"{module}, line {node.lineno}: {RULE}")
        if node.module != "__future__":
            _add(str(node.module), parts, owners)
        assert node.end_lineno is not None
        for i in range(node.lineno - 1, node.end_lineno):
            lines[i] = ""
    for name in _defined_names(tree):
        if owners.setdefault(name, module) != module:
            raise ValueError(f"{module} and {owners[name]} both define {name}; rename one, so that both can be copied")
    parts[module] = "\n".join(lines).strip()


def _defined_names(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return names
