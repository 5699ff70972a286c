"""What mistakes can be made in a function, on its syntax tree.

An operator is a function of a node that lists the nodes which a mistake could put in its place.
"""

import ast
import copy
import dataclasses
from collections.abc import Callable, Iterator

SWAPPED_OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NEGATED = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
# Words in names that stand for the two directions or the two ends.
OPPOSITES = (
    ("forward", "backward"),
    ("generator", "amortiser"),
    ("gen", "amort"),
    ("up", "down"),
    ("label", "image"),
)
OPPOSITE = {one: other for pair in OPPOSITES for one, other in (pair, pair[::-1])}
ARRAY_FUNCTIONS = {"sum": "mean", "mean": "sum", "zeros": "ones", "ones": "zeros"}


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One mistake in a module.

    Attributes:
        file: the module's path in the package.
        function: the function's qualified name.
        operator: the name of the operator that makes it.
        tree: the module's syntax tree, without the mistake.
        context: the expression around the node that is replaced, or that node.
        old: the node of it that is replaced.
        new: what takes its place.
    """

    file: str
    function: str
    operator: str
    tree: ast.Module
    context: ast.expr
    old: ast.expr
    new: ast.expr

    def change(self) -> tuple[str, str]:
        """Write the context without and with the mistake."""
        return ast.unparse(self.context), self._in(self.context)

    def source(self) -> str:
        """Write the module with the mistake."""
        return self._in(self.tree)

    def _in(self, tree: ast.AST) -> str:
        # Copied together, so that the node is still one of the tree's.
        tree, old, new = copy.deepcopy((tree, self.old, self.new))
        return ast.unparse(_Replacement(old, new).visit(tree))

    def __str__(self) -> str:
        before, after = _shortened(*self.change())
        return f"{self.function}: {before} → {after}, {self.file}:{self.old.lineno}"


def list_mistakes(file: str, source: str, functions: tuple[str, ...]) -> list[Mistake]:
    """List every mistake that the operators make in some functions of a module.

    Raises:
        ValueError: if the module has no such function.
    """
    tree = ast.parse(source)
    found = dict(_functions(tree))
    everywhere = {name for name in _identifiers(tree) if name[0] == "."}
    everywhere |= {f".{name}" for name in ARRAY_FUNCTIONS} | set(found)
    mistakes = []
    for name in functions:
        if name not in found:
            raise ValueError(f"{file} has no function '{name}'")
        known = everywhere | _identifiers(found[name])
        for node, context in _expressions(found[name]):
            for operator in OPERATORS:
                for new in operator(node):
                    if _identifiers(new) <= known:
                        kind = operator.__name__
                        mistakes.append(Mistake(file, name, kind, tree, context, node, new))
    return mistakes


def swap_operator(node: ast.expr) -> Iterator[ast.expr]:
    """Add in place of subtracting, or ask for either in place of both; and the reverse."""
    match node:
        case ast.BinOp(left, operator, right) if type(operator) in SWAPPED_OPERATORS:
            yield ast.BinOp(left, SWAPPED_OPERATORS[type(operator)](), right)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)


def drop_factor(node: ast.expr) -> Iterator[ast.expr]:
    """Leave out a factor, a divisor, a power or a transposition."""
    match node:
        case ast.BinOp(left, ast.Mult(), right):
            yield left
            yield right
        case ast.BinOp(left, ast.Div() | ast.Pow(), _):
            yield left
        case ast.Attribute(value, "T"):
            yield value


def drop_sign(node: ast.expr) -> Iterator[ast.expr]:
    """Leave out a minus or a negation."""
    match node:
        case ast.UnaryOp(ast.USub() | ast.Invert() | ast.Not(), operand):
            yield operand


def swap_names(node: ast.expr) -> Iterator[ast.expr]:
    """Take the other direction, or the other end."""
    match node:
        case ast.Name(name, ast.Load()) if _opposite(name) != name:
            yield ast.Name(_opposite(name), ast.Load())
        case ast.Attribute(value, name, ast.Load()) if _opposite(name) != name:
            yield ast.Attribute(value, _opposite(name), ast.Load())


def swap_array_function(node: ast.expr) -> Iterator[ast.expr]:
    """Take a mean in place of a sum, or ones in place of zeros; and the reverse."""
    match node:
        case ast.Attribute(ast.Name("jnp") as module, name) if name in ARRAY_FUNCTIONS:
            yield ast.Attribute(module, ARRAY_FUNCTIONS[name], ast.Load())


def shorten_loop(node: ast.expr) -> Iterator[ast.expr]:
    """Leave out the last of what a comprehension goes over, or go over it from the other end."""
    match node:
        case ast.ListComp(element, [loop]) | ast.GeneratorExp(element, [loop]):
            for cut in ("[:-1]", "[::-1]"):
                over = _sliced(loop.iter, cut)
                changed = ast.comprehension(loop.target, over, loop.ifs, loop.is_async)
                yield type(node)(element, [changed])


def change_number(node: ast.expr) -> Iterator[ast.expr]:
    """Count one more, or double a real number."""
    match node:
        case ast.Constant(bool()):
            return
        case ast.Constant(int(number)):
            yield ast.Constant(number + 1)
        case ast.Constant(float(number)):
            yield ast.Constant(2 * number or 1.0)


def negate(node: ast.expr) -> Iterator[ast.expr]:
    """Negate a comparison, or swap what either answer leads to."""
    match node:
        case ast.Compare(left, [operator], right) if type(operator) in NEGATED:
            yield ast.Compare(left, [NEGATED[type(operator)]()], right)
        case ast.Call(ast.Attribute(_, "where") as where, [condition, one, other]):
            yield ast.Call(where, [condition, other, one], [])


def skip_function(node: ast.expr) -> Iterator[ast.expr]:
    """Take a function's only argument in place of its value."""
    match node:
        case ast.Call(_, [ast.expr() as argument], []) if not isinstance(argument, ast.Starred):
            yield argument


OPERATORS: tuple[Callable[[ast.expr], Iterator[ast.expr]], ...] = (
    swap_operator,
    drop_factor,
    drop_sign,
    swap_names,
    swap_array_function,
    shorten_loop,
    change_number,
    negate,
    skip_function,
)


class _Replacement(ast.NodeTransformer):
    def __init__(self, old: ast.expr, new: ast.expr):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """List functions and methods by their qualified names."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for own in node.body:
                if isinstance(own, ast.FunctionDef):
                    yield f"{node.name}.{own.name}", own


def _expressions(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """List the expressions that compute something, each with the one around it.

    Signatures and the words of errors compute nothing; and all arrays have the same dtype, so it
    does not matter which is asked for it.
    """
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            match child:
                case ast.arguments() | ast.Raise() | ast.Attribute(_, "dtype"):
                    continue
                case ast.expr():
                    yield child, node if isinstance(node, ast.expr) else child
            if isinstance(child, ast.AST):
                yield from _expressions(child)


def _identifiers(tree: ast.AST) -> set[str]:
    """List all names in a tree, with a dot before those of attributes."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(name) | ast.arg(name) | ast.FunctionDef(name):
                names.add(name)
            case ast.Attribute(_, name):
                names.add(f".{name}")
    return names


def _opposite(name: str) -> str:
    return "_".join(OPPOSITE.get(word, word) for word in name.split("_"))


def _sliced(iterated: ast.expr, cut: str) -> ast.expr:
    """Cut what is iterated over; of `enumerate(x)` and the like, cut x."""
    if isinstance(iterated, ast.Call) and isinstance(iterated.func, ast.Name) and iterated.args:
        return ast.Call(iterated.func, [_sliced(iterated.args[0], cut), *iterated.args[1:]], [])
    return ast.parse(f"({ast.unparse(iterated)}){cut}", mode="eval").body


def _shortened(before: str, after: str, length: int = 70) -> list[str]:
    """Shorten two codes to where they begin to differ."""
    pairs = enumerate(zip(before, after, strict=False))
    differs = next((i for i, (one, other) in pairs if one != other), 0)
    start = max(differs - length // 2, 0) if max(len(before), len(after)) > length else 0
    return [
        ("… " if start else "")
        + code[start : start + length]
        + (" …" if len(code) > start + length else "")
        for code in (before, after)
    ]
