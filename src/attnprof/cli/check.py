"""``attnprof check``: hold what targets cost against a lock file, for pre-commit and CI."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from attnprof import api
from attnprof.cli import inputs as input_specs
from attnprof.cli import options, target
from attnprof.cli.request import Request
from attnprof.cli.users_code import their_own
from attnprof.core import amounts, lock
from attnprof.core.units import Units
from attnprof.reports.files import check_replaceable, check_writable, write_text
from attnprof.reports.ours import MARKDOWN_MARK
from attnprof.reports.text import in_markdown, printable

_LOCK = Path("attnprof.lock.toml")
_STDOUT = Path("-")


def check(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET", help="As for `attnprof run`; one or more.", show_default=False),
    ],
    lock_path: Annotated[Path, typer.Option("--lock", metavar="FILE", help="The lock file.")] = _LOCK,
    update: Annotated[bool, typer.Option("--update", help="Write the entries of these targets instead.")] = False,
    tolerance: Annotated[
        str, typer.Option(metavar="PERCENT", help="How far a number may be from its lock, either way: '1%'.")
    ] = "0",
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="SPEC", help="As for `attnprof run`. Repeatable.", show_default=False),
    ] = None,
    backward: Annotated[bool, typer.Option("--backward", help="Count the backward pass too.")] = False,
    optimizer: options.Optimizer = None,
    loss: options.LossText = None,
    dtype: options.Dtype = None,
    autocast: options.Autocast = None,
    checkpoint: options.Checkpoint = False,
    freeze: options.Freeze = None,
    fake: Annotated[bool, typer.Option("--fake", help="Build and run on fake tensors.")] = False,
    training: Annotated[
        bool | None,
        typer.Option("--train/--eval", help="Put the model in this mode. Default: as the target left it."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the weights and of the --input values.")] = 0,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="FILE", help="Write the result as Markdown too.", show_default=False),
    ] = None,
    force: options.Force = False,
) -> None:
    """Hold what targets cost against a lock file.

    Each is counted and compared with its entry, every module and phase, exactly. An entry is named as the command
    counts it: 'model.py:build --backward'.

    Exit codes: 0 all as locked, or updated; 1 some are not, have no entry, or raised; 2 something to correct.

    Example: attnprof check --lock attnprof.lock.toml model.py:build
    """
    allowed = amounts.tolerance(tolerance)
    specs = [input_specs.parse(text) for text in inputs or []]
    page = None if markdown == _STDOUT else markdown
    for path in (page, lock_path if update else None):
        if path is not None:
            check_writable(path)
    if page is not None:
        check_replaceable(page, force)
    told_on = sys.stderr if markdown == _STDOUT else sys.stdout
    present = lock.read(lock_path)

    import torch

    from attnprof.analysis.budget_changes import compare
    from attnprof.analysis.budget_snapshot import snapshot
    from attnprof.capture import optimizers
    from attnprof.capture.plans import Plan
    from attnprof.testing import difference, update_lock

    plan = Plan(dtype=dtype, autocast=autocast, checkpoint=checkpoint, freeze=freeze or ())
    if optimizer is not None:
        optimizers.parse(optimizer)
    mode = None if training is None else "train" if training else "eval"
    words = {"input": inputs, "backward": backward, "optimizer": optimizer, "loss": loss, "dtype": dtype}
    words |= {"autocast": autocast, "checkpoint": checkpoint, "freeze": freeze, "fake": fake}
    said = _said(**words, **({mode: True} if mode else {}), seed=str(seed) if seed else None)
    new: dict[str, lock.Entry] = {}
    results: list[tuple[str, bool, str]] = []  # name, whether all is well, what to say
    for text in targets:
        name = " ".join([text, *said])
        remedy = _command([text, *said], lock_path)
        torch.manual_seed(seed)
        try:
            with their_own(f"importing {text}"):
                found = target.find(text)
            loss_function = None if loss is None else _loss(loss)
            request = Request(text, found, specs, seed, fake, training, backward, loss_function, optimizer, plan)
            made = request.build()
            counting = api.profile(made.model, recount_every=1)
            with their_own("the model"):
                request.drive(counting, made)
        except typer.Exit:  # it raised, and its traceback is shown
            results.append((name, False, f"{name}: raised"))
        else:
            report = counting.report()
            entry, now = present.get(name), lock.Entry(snapshot(report))
            total = f"{name}: {Units().named(report.total.flops)}"
            changes = None if entry is None else compare(entry.snapshot, now.snapshot, allowed)
            if update:
                new[name] = now
                results.append((name, True, f"{total}, {'up to date' if now == entry else 'written'}"))
            elif changes is None:
                told = f"{total}, no entry in {lock_path}\n  write it: {remedy}"
                results.append((name, False, told))
            elif changes:
                results.append((name, False, difference(name, changes, f"update on purpose: {remedy}")[0]))
            else:
                exactly = entry is not None and not compare(entry.snapshot, now.snapshot)
                told = "as locked" if exactly else f"within {tolerance.strip()} of what is locked"
                results.append((name, True, f"{total}, {told}"))
        print(_printable(results[-1][2]), file=told_on, flush=True)
    if update and new:
        update_lock(lock_path, new)
    if page is not None:
        write_text(page, _to_markdown(results))
    elif markdown is not None:
        print(_to_markdown(results), end="")
    if not all(well for _, well, _ in results):
        bad = sum(not well for _, well, _ in results)
        print(
            f"attnprof: {bad} of {len(results)} targets {'is' if bad == 1 else 'are'} not as locked.", file=sys.stderr
        )
        raise typer.Exit(1)


def _command(counted: list[str], lock_path: Path) -> str:
    """The command that writes an entry, as a shell takes it: how it was counted is its name."""
    where = [] if lock_path == _LOCK else ["--lock", str(lock_path)]
    return shlex.join(["attnprof", "check", *counted, *where, "--update"])


def _said(**options: object) -> list[str]:
    """The options that decide what is counted, as they are typed."""
    words: list[str] = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None and one is not False:
                words += [f"--{name}"] if one is True else [f"--{name}", str(one)]
    return words


def _loss(text: str) -> Callable[[Any], Any]:
    from attnprof.capture import loss as losses

    with their_own(f"importing {text}"):
        found = target.find_loss(text)
    losses.check(found)
    return found


def _printable(text: str) -> str:
    """Lines that are safe on a terminal."""
    return "\n".join(map(printable, text.split("\n")))


def _to_markdown(results: list[tuple[str, bool, str]]) -> str:
    bad = sum(not well for _, well, _ in results)
    parts = [
        MARKDOWN_MARK,
        f"{bad} of {len(results)} targets differ from the lock file." if bad else "All targets are as locked.",
    ]
    for _, well, text in results:
        first, *rest = text.split("\n")
        mark = "" if well else "**differs** "
        parts.append(f"- {mark}{in_markdown(first)}")
        if rest:  # four spaces more than the item make it code, whatever is in it
            parts.append("\n".join(f"      {printable(line.removeprefix('  '))}" for line in rest))
    return "\n\n".join(parts) + "\n"
