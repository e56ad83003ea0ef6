"""Questions to a recovered expression: which terms grow fastest in a symbol, and from where on they are most."""

from __future__ import annotations

from sympy import Add, Dummy, Expr, Integer, Max, Min, Piecewise, Pow, Symbol, ceiling, floor, log, solve
from sympy import latex as to_latex

from attnprof.analytic.symbols import CeilLog2, FloorLog2
from attnprof.analytic.symbols import symbol as named
from attnprof.core.latex_symbols import between_factors, symbol_in_latex

#: Where a crossing of what is no polynomial is looked for.
_FAR = 2**62


def dominant(expression: Expr, symbol: str) -> Expr:
    """The terms of the largest power of a symbol, and of logarithms of it, for large values of it."""
    x = named(symbol)
    terms = Add.make_args(for_large(expression, x).expand())
    orders = {term: _order(term, x) for term in terms}
    most = max(orders.values())
    return Add(*(term for term, order in orders.items() if order == most))


def crossover(expression: Expr, symbol: str) -> Expr | None:
    """The value of a symbol from which on the dominant terms are more than the rest, or None."""
    x = named(symbol)
    whole = for_large(expression, x).expand()
    most = dominant(whole, symbol)
    rest = whole - most
    if rest == 0:
        return None
    ahead = (most - rest).expand()
    if ahead.is_polynomial(x):
        anywhere = Dummy(positive=True)  # between whole numbers too, where sizes never are
        lowest = min(term.as_powers_dict().get(x, Integer(0)) for term in Add.make_args(ahead))
        found = [root for root in solve((ahead / x**lowest).expand().subs(x, anywhere), anywhere) if root.is_real]
        return max(found, key=lambda root: root.evalf()) if found and not ahead.free_symbols - {x} else _last(found)
    return None if ahead.free_symbols - {x} else _from(ahead, x)


def _last(found: list[Expr]) -> Expr | None:
    return found[-1] if found else None


def _from(ahead: Expr, x: Symbol) -> Expr | None:
    """The whole number from which on an expression of one symbol is above 0, by halving; None if it is at 1."""
    low, high = 1, _FAR
    if ahead.xreplace({x: Integer(low)}) > 0 or ahead.xreplace({x: Integer(high)}) <= 0:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if ahead.xreplace({x: Integer(middle)}) > 0 else (middle, high)
    return Integer(high)


def for_large(expression: Expr, x: Symbol) -> Expr:
    """What an expression is for large values of a symbol: its last piece, min(x, w) is w, a maximum what grows most."""
    if not expression.has(Piecewise, Min, Max):
        return expression
    if isinstance(expression, Piecewise):
        return for_large(expression.args[-1][0], x)
    args = [for_large(arg, x) for arg in expression.args]
    if isinstance(expression, Min):
        return Min(*([arg for arg in args if not arg.has(x)] or args))
    if isinstance(expression, Max):
        return max(args, key=lambda arg: _leading(arg, x))
    return expression.func(*args)


def _leading(expression: Expr, x: Symbol) -> tuple[tuple[Expr, Expr], ...]:
    """What orders expressions by growth: the largest order, and the number in front of it."""
    orders = [(_order(term, x), term.as_coeff_Mul()[0]) for term in Add.make_args(expression.expand())]
    most = max(order for order, _ in orders)
    return most, (max(c for order, c in orders if order == most), Integer(0))


def _order(term: Expr, x: Symbol) -> tuple[Expr, Expr]:
    """The powers of a symbol and of its logarithm in a term, rounded quotients taken as quotients."""
    smooth = term.replace(ceiling, lambda arg: arg).replace(floor, lambda arg: arg)
    smooth = smooth.replace(
        lambda part: isinstance(part, Pow) and part.base == 2 and isinstance(part.exp, CeilLog2 | FloorLog2),
        lambda part: part.exp.args[0],
    )
    logarithm = log(x)
    smooth = smooth.replace(CeilLog2, log).replace(FloorLog2, log).expand()
    orders = []
    for part in Add.make_args(smooth):
        powers = part.as_powers_dict()
        orders.append((powers.get(x, Integer(0)), powers.get(logarithm, Integer(0))))
    return max(orders)


def latex(expression: Expr) -> str:
    """The expression in LaTeX, each symbol as one, however it is called."""
    names = {s: symbol_in_latex(s.name) for s in expression.free_symbols}
    return str(to_latex(expression, symbol_names=names, mul_symbol=between_factors(s.name for s in names)))
