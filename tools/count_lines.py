"""Count the lines of the package's Python source by kind: code, imports, docstrings, comments, blank.

    python tools/count_lines.py                   the total
    python tools/count_lines.py --by package      one row for each package
    python tools/count_lines.py --by file src     one row for each file of a folder

A line with code and a comment counts as code; a line inside a docstring that is empty counts as docstring.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections import Counter
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parent.parent
KINDS: Final = ("code", "imports", "docstrings", "comments", "blank")
_NO_CODE: Final = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)


def count(text: str) -> Counter[str]:
    """Count the lines of one file by kind; their sum is the number of its lines."""
    tree = ast.parse(text)
    kinds = dict.fromkeys(range(1, text.count("\n") + 1), "blank")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = "comments" if token.type == tokenize.COMMENT else "code"
        if kind == "comments" or token.type not in _NO_CODE:
            for number in range(token.start[0], token.end[0] + 1):
                if kinds.get(number) != "code":
                    kinds[number] = kind
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            kinds.update(dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), "imports"))
        elif (docstring := docstring_of(node)) is not None:
            kinds.update(dict.fromkeys(range(docstring.lineno, (docstring.end_lineno or 0) + 1), "docstrings"))
    return Counter(kinds.values())


def docstring_of(node: ast.AST) -> ast.Expr | None:
    """Return the statement that is a node's docstring; None if it has none."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
        return None
    match node.body[0]:
        case ast.Expr(value=ast.Constant(value=str())) as first:
            return first
    return None


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Count lines of Python source by kind.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "src" / "stapes")
    parser.add_argument("--by", choices=("package", "file"), help="rows beside the total")
    given = parser.parse_args()
    rows: dict[str, Counter[str]] = {}
    for path in sorted(given.folder.rglob("*.py")):
        place = path.relative_to(given.folder)
        name = place.as_posix() if given.by == "file" else place.parts[0] if len(place.parts) > 1 else "."
        rows.setdefault(name, Counter()).update(count(path.read_text("utf-8")))
    total = sum(rows.values(), Counter[str]())
    print(f"{'':44}{'code+imports':>13}" + "".join(f"{kind:>12}" for kind in KINDS))
    for name, found in [*(sorted(rows.items()) if given.by else ()), ("total", total)]:
        both = found["code"] + found["imports"]
        print(f"{name:44}{both:13,}" + "".join(f"{found[kind]:12,}" for kind in KINDS))


if __name__ == "__main__":
    main()
