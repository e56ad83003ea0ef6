"""What ``attnprof scale`` was asked about: a builder or a mechanism of the zoo, and claims with the sizes they name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attnprof.cli.users_code import their_own
from attnprof.core.errors import AttnprofError

if TYPE_CHECKING:
    from attnprof.analysis.scaling_theory import Theory
    from attnprof.claims.grammar import Claim
    from attnprof.recovery.scaling import Scaling


def find(text: str, given: Mapping[str, Any]) -> tuple[Callable[..., Any] | str, dict[str, Any]]:
    """What the target names, and the sizes it takes with their usual values; a name of the zoo stays a name."""
    import torch

    from attnprof import zoo
    from attnprof.api.competitors import parse_names
    from attnprof.cli import target
    from attnprof.core.short_names import SHORT_NAMES

    torch.manual_seed(0)
    word, colon, _ = text.partition(":")
    if word in (*zoo.names(), *SHORT_NAMES) or (not colon and not word.endswith(".py")):
        (competitor,) = parse_names([text], {}, {})
        entry = zoo.find(competitor.name)
        return text, {**entry.shape, **entry.symbols, **competitor.symbols}
    with their_own(f"importing {text}"):
        build = target.find_builder(text)
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature: the call will tell
        return build, dict(given)
    return build, {p.name: p.default for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def closed_form(
    found: Scaling, build: Callable[..., Any] | str, target: str, takes: Mapping[str, Any], kept: Mapping[str, Any]
) -> Theory | None:
    """The closed form of a mechanism of the zoo, or theory of a model of known modules, where there is one."""
    from attnprof import zoo
    from attnprof.analysis.scaling_theory import theory
    from attnprof.api.scaling_theory import of_modules
    from attnprof.core.short_names import full_name

    if not isinstance(build, str):
        return of_modules(found, build)
    name = full_name(target.partition(":")[0])
    return theory(found, name, {**takes, **kept}) if name in zoo.names() else None


def read_claims(
    texts: Sequence[str], assumptions: Sequence[str], takes: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[list[Claim], list[tuple[Any, Any]], dict[str, int]]:
    """The claims, what is assumed, and what they name that does not vary, with its usual size."""
    if not texts and not assumptions:
        return [], [], {}
    if not texts:
        raise AttnprofError("--assume goes with --claim: what is to be judged?")

    from attnprof.analysis.scaling_claim import names_in, read, read_assumption

    sizes = [name for name, value in {**takes, **given}.items() if _is_size(name, value, given)]
    claims = [read(text, sizes) for text in texts]
    assumed = [read_assumption(text, sizes) for text in assumptions]
    named = names_in(*(c.expression for c in claims), *(e for pair in assumed for e in pair))
    more = {}
    for name in sizes:
        value = given.get(name, takes.get(name))
        if name in named and isinstance(value, int):
            if value < 2:
                raise AttnprofError(f"the claim is about {name}, which is {value}: vary it, as in --vary {name}=2..16.")
            more[name] = value
        elif name in named and name not in given:
            raise AttnprofError(
                f"the claim is about {name}, which has no usual size: vary it, as in --vary {name}=2..16."
            )
    return claims, assumed, more


def _is_size(name: str, value: Any, given: Mapping[str, Any]) -> bool:
    """Whether an argument is a size: a whole number, or one that varies, or that must be given."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    varies = name in given and not isinstance(given[name], int | float | str | bool | None)
    return whole or varies or value is inspect.Parameter.empty
