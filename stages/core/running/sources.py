"""Which source files a module is made of: the truth that dvc.yaml's `deps` must tell.

DVC does not follow imports, so they are followed here, through the syntax tree: nothing is executed.
"""

import ast
import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MODULE = re.compile(r"stages(\.\w+)+")


def of(module: str) -> set[Path]:
    """Every file of this project that `module` imports, directly or not, relative to the project's root."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        path = _locate(waiting.pop())
        if path is None or path in found:
            continue
        found.add(path)
        found.update(_templates(path))
        waiting.extend(_imports(path))
    return {path.relative_to(ROOT) for path in found if path.stat().st_size}


def digest(module: str) -> str:
    """One digest for all the code that a module runs."""
    total = hashlib.sha256()
    for path in sorted(of(module)):
        total.update(path.as_posix().encode() + b"\0" + (ROOT / path).read_bytes() + b"\0")
    return total.hexdigest()


def _locate(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(path: Path) -> list[str]:
    """Absolute names of what a file imports, or names because it runs it as a process."""
    modules: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, path)
            modules += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE.fullmatch(node.value):
            modules.append(node.value)
    return [parent for module in modules for parent in _with_parents(module)]


def _base(node: ast.ImportFrom, path: Path) -> str:
    """Of `from .pictures import FITS` in a package, the package's module `pictures`."""
    above = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
    return ".".join((*above, node.module) if node.module else above)


def _with_parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _templates(path: Path) -> set[Path]:
    """A file that is not Python belongs to the package in whose folder it lies."""
    if path.name != "__init__.py":
        return set()
    return {file for file in path.parent.iterdir() if file.is_file() and file.suffix != ".py"}
