"""Show that a commit of moves and words changes no code: the syntax trees of two commits are equal.

    python tools/same_code.py OLD                          OLD against the working tree
    python tools/same_code.py OLD NEW --names names.txt    two commits, with renamed identifiers

Compared are all top-level statements and class members of `src`, wherever they stand. Ignored are imports, docstrings,
comments, the order of definitions, and the contents of strings (`--strings` compares those too; f-strings keep their
expressions). names.txt has a line `old new` for each renamed identifier, keyword, attribute or module.
Ends with 1 and lists what differs.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NAMES_OF = ("name", "id", "attr", "arg", "asname", "module", "rest")  # fields that hold identifiers


class _Plain(ast.NodeTransformer):
    """Removes what may differ, and inserts the new names."""

    def __init__(self, names: Mapping[str, str], *, keep_strings: bool) -> None:
        self._names = names
        self._keep_strings = keep_strings

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str) and not self._keep_strings:
            return ast.Constant("")
        return node

    def visit_Import(self, _: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, _: ast.ImportFrom) -> None:
        return None

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for field in _NAMES_OF:
            value = getattr(node, field, None)
            if isinstance(value, str):
                setattr(node, field, ".".join(self._names.get(part, part) for part in value.split(".")))
        if isinstance(node, ast.Global | ast.Nonlocal):
            node.names = [self._names.get(name, name) for name in node.names]
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and _is_text(body[0].value):
            del body[0]  # a docstring
        found = super().generic_visit(node)
        if isinstance(body, list) and not body:
            body.append(ast.Pass())
        return found


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def statements(text: str, path: str, plain: _Plain) -> Iterator[tuple[str, str]]:
    """Yield (normalised source, where it stands) for every top-level statement, classes member by member."""
    for node in ast.parse(text, filename=path).body:
        if isinstance(node, ast.Import | ast.ImportFrom) or (isinstance(node, ast.Expr) and _is_text(node.value)):
            continue
        found = plain.visit(node)
        if found is None:
            continue
        if isinstance(found, ast.ClassDef):
            members, found.body = found.body, [ast.Pass()]
            for member in members:
                if not isinstance(member, ast.Pass):
                    yield f"{found.name}: {ast.dump(member)}", f"{path}: {_title(member)} of {found.name}"
        yield ast.dump(found), f"{path}: {_title(found)}"


def _title(node: ast.AST) -> str:
    name = getattr(node, "name", None)
    return name if isinstance(name, str) else ast.unparse(ast.fix_missing_locations(node)).split("\n")[0][:80]


def sources(commit: str | None) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of every Python file of `src` at a commit, or in the working tree."""
    if commit is None:
        for path in sorted((ROOT / "src").rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
        return
    listed = _git("ls-tree", "-r", "--name-only", commit, "--", "src").split("\n")
    for name in listed:
        if name.endswith(".py"):
            yield name, _git("show", f"{commit}:{name}")


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603


def main() -> int:
    """Compare, and list what differs."""
    parser = argparse.ArgumentParser(description="Compare the syntax trees of two commits.")
    parser.add_argument("old")
    parser.add_argument("new", nargs="?", help="left out: the working tree")
    parser.add_argument("--names", type=Path, help="file with a line `old new` for each renamed identifier")
    parser.add_argument("--strings", action="store_true", help="compare the contents of strings too")
    given = parser.parse_args()
    lines = given.names.read_text("utf-8").splitlines() if given.names else []
    names = dict(tuple(line.split()) for line in lines if line.strip() and not line.startswith("#"))
    counted, places = [], dict[str, str]()
    for commit, table in ((given.old, names), (given.new, {})):
        found = Counter[str]()
        for path, text in sources(commit):
            for code, place in statements(text, path, _Plain(table, keep_strings=given.strings)):
                found[code] += 1
                places.setdefault(code, place)
        counted.append(found)
    old, new = counted
    gone, came = sorted(places[one] for one in old - new), sorted(places[one] for one in new - old)
    for title, ones in (("only in the old tree", gone), ("only in the new tree", came)):
        for one in ones:
            print(f"{title}: {one}")
    print(f"{sum((old & new).values())} statements are equal, {len(gone)} are gone, {len(came)} are new")
    return 1 if gone or came else 0


if __name__ == "__main__":
    sys.exit(main())
