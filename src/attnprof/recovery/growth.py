"""Questions to a recovered expression: which terms grow fastest in a symbol, and from where on they are most."""

from __future__ import annotations

from sympy import Add, Dummy, Expr, Integer, Piecewise, simplify, solve
from sympy import latex as to_latex

from attnprof.analytic.symbols import symbol as named


def dominant(expression: Expr, symbol: str) -> Expr:
    """The terms of the largest power of a symbol."""
    x = named(symbol)
    whole = _for_large(expression).expand()
    powers = {term: term.as_powers_dict().get(x, Integer(0)) for term in Add.make_args(whole)}
    most = max(powers.values())
    return Add(*(term for term, power in powers.items() if power == most))


def crossover(expression: Expr, symbol: str) -> Expr | None:
    """The value of a symbol from which on the dominant terms are more than the rest, or None."""
    x = named(symbol)
    whole = _for_large(expression).expand()
    most = dominant(whole, symbol)
    rest = whole - most
    if rest == 0:
        return None
    anywhere = Dummy(positive=True)  # between whole numbers too, where sizes never are
    ahead = simplify((most - rest) / x ** _lowest(most - rest, symbol)).subs(x, anywhere)
    found = [root for root in solve(ahead, anywhere) if root.is_positive is not False]
    return found[-1] if found else None


def _lowest(expression: Expr, symbol: str) -> Expr:
    return min(term.as_powers_dict().get(named(symbol), Integer(0)) for term in Add.make_args(expression.expand()))


def _for_large(expression: Expr) -> Expr:
    return expression.args[-1][0] if isinstance(expression, Piecewise) else expression


def latex(expression: Expr) -> str:
    return str(to_latex(expression))
