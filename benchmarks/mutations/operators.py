"""One-line mutations of a Python file: where each operator applies, and what the line becomes."""

import ast
import json
import re
from dataclasses import dataclass
from random import Random

COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
}
EXTREMES = {"min": "max", "max": "min", "amin": "amax", "amax": "amin", "minimum": "maximum", "maximum": "minimum"}
LOOKUPS = {"get", "pop", "setdefault"}  # methods whose first argument is a key
WORDS = {"help", "description", "epilog", "metavar", "hint"}  # keyword arguments that only people read
SPEAKERS = {"print", "note", "_note", "warn", "debug", "info", "warning", "error", "exception"}
SYMMETRIC = EXTREMES.keys() | {"zip", "gcd", "lcm", "hypot", "isclose", "TypeVar"}  # in their arguments, or nearly so
TYPED = {"isinstance", "issubclass", "hasattr", "getattr", "setattr", "cast"}  # any swap is an error at once
PATHS = re.compile(r"path|folder|root|parent|home|cache|dir", re.IGNORECASE)  # what `/` joins
TEXTS = (ast.JoinedStr, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.ListComp)  # what + and * join and repeat


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A replacement of a part of one line; columns are UTF-8 bytes, as in `ast`."""

    line: int  # from 1
    start: int
    end: int
    text: str
    operator: str


def edits(source: str, random: Random) -> list[Edit]:
    """Return every edit of one line that an operator can make; `changes` says which of them give another program."""
    finder = _Finder(source, random)
    finder.visit(ast.parse(source))
    return finder.edits


def changes(source: str, edit: Edit) -> bool:
    """Return whether an edit gives another program that compiles."""
    return _parsed(apply(source, edit)) not in ("", _parsed(source))


def apply(source: str, edit: Edit) -> str:
    """Return a source with an edit made."""
    lines = source.split("\n")
    line = lines[edit.line - 1].encode()
    lines[edit.line - 1] = (line[: edit.start] + edit.text.encode() + line[edit.end :]).decode()
    return "\n".join(lines)


def _parsed(source: str) -> str:
    """Return a program's syntax tree as text; empty if it has none."""
    try:
        tree = ast.parse(source)
        compile(tree, "<mutation>", "exec")
    except SyntaxError:
        return ""
    return ast.dump(tree)


class _Finder(ast.NodeVisitor):
    """Collect edits, outside of annotations, docstrings, messages and type-checking blocks."""

    def __init__(self, source: str, random: Random) -> None:
        self.edits: list[Edit] = []
        self._lines = [line.encode() for line in source.split("\n")]
        self._random = random
        self._defaults: set[ast.expr] = set()  # values that are defaults of parameters or fields
        self._bounds: set[ast.expr] = set()  # values that are bounds of slices

    # What is never changed.

    def visit_Raise(self, node: ast.Raise) -> None:
        """Leave error messages alone."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """Leave invariants alone."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave formatted texts alone."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Visit the value and not the annotation."""
        if isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias":
            return
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Visit assignments to other names than `__all__` and the like."""
        if not any(isinstance(target, ast.Name) and target.id.startswith("__") for target in node.targets):
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Visit defaults and the body, and neither annotations nor decorators."""
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """Visit it as any function."""
        self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self._defaults.add(default)
                self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Visit the body, where annotated assignments are defaults of fields."""
        fields = [statement.value for statement in node.body if isinstance(statement, ast.AnnAssign)]
        self._defaults.update(value for value in fields if value is not None)
        for statement in node.body:
            self.visit(statement)

    # What may be changed.

    def visit_If(self, node: ast.If) -> None:
        """Negate a condition; leave blocks for type checkers and for scripts alone."""
        test = ast.unparse(node.test)
        if test not in ("TYPE_CHECKING", "typing.TYPE_CHECKING") and "__name__" not in test:
            self._negate(node.test)
            self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """Negate the condition of an expression."""
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Negate the conditions of a comprehension."""
        for condition in node.ifs:
            self._negate(condition)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Swap a comparison with its neighbour or its opposite."""
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            self._between(left, right, *COMPARISONS[type(operator)], "compare")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Swap plus with minus and times with divided by, where these are sums."""
        if type(node.op) in ARITHMETIC and not any(map(_is_text, (node.left, node.right))):
            joins = isinstance(node.op, ast.Div) and PATHS.search(ast.unparse(node.left))
            if not joins:
                self._between(node.left, node.right, *ARITHMETIC[type(node.op)], "arithmetic")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Swap `and` with `or`, at one place."""
        words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between(left, right, *words, "boolean")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """Drop a `not`."""
        if isinstance(node.op, ast.Not):
            self._replace(node.lineno, node.col_offset, node.col_offset + len("not "), "", "not")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Change a number by one, or to its double or half; change a default's truth or text."""
        operator = "default" if node in self._defaults else "constant"
        if node in self._bounds:
            return
        if type(node.value) is int:
            self._substitute(node, str(node.value + self._random.choice((-1, 1))), operator)
        elif type(node.value) is float and node.value:
            self._substitute(node, repr(node.value * self._random.choice((0.5, 2.0))), operator)
        elif node in self._defaults and isinstance(node.value, bool):
            self._substitute(node, repr(not node.value), operator)
        elif node in self._defaults and isinstance(node.value, str):
            self._substitute(node, _quoted(f"{node.value}_"), operator)

    def visit_Call(self, node: ast.Call) -> None:
        """Swap min with max, and two arguments; change a key that is looked up."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in SPEAKERS:
            return
        if name in EXTREMES and node.func.end_col_offset is not None and node.func.end_lineno is not None:
            end = node.func.end_col_offset
            self._replace(node.func.end_lineno, end - len(name), end, EXTREMES[name], "extreme")
        if len(node.args) > 1 and name not in SYMMETRIC | TYPED:
            self._swap(node.args[0], node.args[1])
        if name in LOOKUPS and node.args:
            self._key(node.args[0])
        self.visit(node.func)
        for value in (*node.args, *(word.value for word in node.keywords if word.arg not in WORDS)):
            self.visit(value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """Change a key; leave types alone, as in `Float[Tensor, "c h w"]`."""
        if not ast.unparse(node.value).rpartition(".")[2][:1].isupper():
            self._key(node.slice)
            self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        """Change a key of a literal."""
        for key in node.keys:
            if key is not None:
                self._key(key)
        self.generic_visit(node)

    def visit_Slice(self, node: ast.Slice) -> None:
        """Move a bound by one."""
        for bound in (node.lower, node.upper):
            if bound is not None:
                self._bounds.add(bound)
                if isinstance(bound, ast.Constant) and isinstance(bound.value, int):
                    self._substitute(bound, str(bound.value + 1), "slice")
                else:
                    self._substitute(bound, f"{self._text(bound)} + 1", "slice")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        """Return what the last operation was applied to, without it."""
        if node.value is not None:
            early = _early(node.value)
            if early is not None:
                self._substitute(node.value, self._text(early), "return")
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        if not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):  # `visit_UnaryOp` drops that one
            self._substitute(test, f"not ({self._text(test)})", "condition")

    def _key(self, node: ast.expr) -> None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            self._substitute(node, _quoted(f"{node.value}_"), "key")

    def _swap(self, first: ast.expr, second: ast.expr) -> None:
        starred = any(isinstance(argument, ast.Starred) for argument in (first, second))
        kinds = {type(argument.value) for argument in (first, second) if isinstance(argument, ast.Constant)}
        if not starred and len(kinds) < 2 and first.lineno == second.end_lineno and second.end_col_offset is not None:
            line = self._lines[first.lineno - 1]
            between = line[first.end_col_offset : second.col_offset].decode()
            text = f"{self._text(second)}{between}{self._text(first)}"
            self._replace(first.lineno, first.col_offset, second.end_col_offset, text, "arguments")

    def _between(self, left: ast.expr, right: ast.expr, old: str, new: str, operator: str) -> None:
        """Replace the sign between two operands."""
        if left.end_lineno == right.lineno and left.end_col_offset is not None:
            between = self._lines[right.lineno - 1][left.end_col_offset : right.col_offset].decode()
            text = between.replace(old, new, 1)
            self._replace(right.lineno, left.end_col_offset, right.col_offset, text, operator)

    def _substitute(self, node: ast.expr, text: str, operator: str) -> None:
        if node.lineno == node.end_lineno and node.end_col_offset is not None and text:
            self._replace(node.lineno, node.col_offset, node.end_col_offset, text, operator)

    def _replace(self, line: int, start: int, end: int, text: str, operator: str) -> None:
        self.edits.append(Edit(line=line, start=start, end=end, text=text, operator=operator))

    def _text(self, node: ast.expr) -> str:
        """Return the source of an expression of one line; empty if it has several."""
        if node.lineno != node.end_lineno:
            return ""
        return self._lines[node.lineno - 1][node.col_offset : node.end_col_offset].decode()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, TEXTS) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _early(value: ast.expr) -> ast.expr | None:
    """Return what the last operation of an expression was applied to; None if it was applied to nothing."""
    if isinstance(value, ast.BinOp):
        return value.left
    if isinstance(value, ast.BoolOp):
        return value.values[0]
    if isinstance(value, ast.IfExp):
        return value.body
    if isinstance(value, ast.Call) and value.args and not isinstance(value.args[0], ast.Starred):
        return value.args[0]
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        return value.func.value
    return None
