"""Steps that follow the one before, and leave it at any event: totals are those of counting every step."""

from __future__ import annotations

import random

import pytest
import torch

import attnprof
from attnprof.capture.track import Track
from stepping.test_counted_once import Gate, numbers, rows

#: What a step may do, one after the other: calls with so many rows, an evaluation, other work after a call, a call that
#: fails, a step of one of two optimizers.
EVENTS = ("3 rows", "4 rows", "evaluation", "more work", "failure", "adam", "sgd")


def run(
    steps: list[list[str]], recount_every: int | None, reports: list[attnprof.Report] | None = None
) -> attnprof.Report:
    """Under a profile, with a report after each event if asked for."""
    torch.manual_seed(0)
    model = Gate()
    optimizers = {"adam": torch.optim.Adam(model.first.parameters()), "sgd": torch.optim.SGD(model.second.parameters())}
    with attnprof.profile(model, recount_every=recount_every) as prof:
        for events in steps:
            for event in events:
                if event in optimizers:
                    optimizers[event].step()
                    optimizers[event].zero_grad()
                elif event == "evaluation":
                    with torch.no_grad():
                        model(rows(5))
                elif event == "failure":
                    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
                        model(torch.ones(4, 7))
                else:
                    loss = model(rows(int(event[0]) if event[0].isdigit() else 3)).sum()
                    (loss.exp().log() if event == "more work" else loss).backward()
                if reports is not None:
                    reports.append(prof.report())
            prof.step()
    return prof.report()


def random_steps(seed: int) -> list[list[str]]:
    """Of a few kinds, in runs: most steps are like the one before, and those that are not differ anywhere."""
    generator = random.Random(seed)
    kinds = [["3 rows", *generator.choices(EVENTS, k=generator.randrange(5))] for _ in range(3)]
    kinds.append(kinds[0][: generator.randrange(1, len(kinds[0]) + 1)])  # one that ends early
    kinds.append([*kinds[1], generator.choice(EVENTS)])  # one that goes on
    warm_up = [kind for kind in kinds for _ in range(3)]
    return warm_up + [kind for kind in generator.choices(kinds, k=20) for _ in range(generator.randrange(1, 6))]


@pytest.mark.parametrize("seed", range(40))
def test_random_programs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A track changes nothing; and where no note says otherwise, steps cost what they do when each is counted."""
    steps = random_steps(seed)
    once = run(steps, None)
    if once.notes == []:
        mine, theirs = numbers(once), numbers(run(steps, 1))
        assert {name: mine[name] for name in mine if mine[name] != theirs[name]} == {}
    monkeypatch.setattr(Track, "of", lambda way, lead: None)
    looked_up = run(steps, None)
    assert (numbers(once), once.notes) == (numbers(looked_up), looked_up.notes)


def test_a_report_in_the_middle_of_a_step_has_its_part() -> None:
    """As much as where every step is counted, up to the segment that is running."""
    steps = [["3 rows", "adam", "4 rows", "sgd"]] * 60  # a track is followed once what comes before the call is known
    once: list[attnprof.Report] = []
    every: list[attnprof.Report] = []
    total = run(steps, None, once).total.flops
    assert total == run(steps, 1, every).total.flops
    known = [report.total.flops for report in every]
    found = [report.total.flops for report in once]
    assert found[20:] == known[19:-1]


def test_a_steady_loop_follows_its_track(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = []
    goes_on = Track.goes_on
    monkeypatch.setattr(Track, "goes_on", lambda track, number: followed.append(goes_on(track, number)) or followed[-1])
    run([["3 rows", "adam", "sgd"]] * 30, None)
    assert followed == [True] * len(followed)
    assert len(followed) >= 25 * 4  # a call, two steps of optimizers, the end


@pytest.mark.parametrize("between", [True, False], ids=["known", "unknown"])
def test_recount_in_the_middle_of_a_step(between: bool) -> None:
    """What the step did before is in the totals, or a note says that it is not."""
    model, steps = Gate(), 20
    optimizer = torch.optim.SGD(model.parameters())
    with attnprof.profile(model) as prof, torch.no_grad():
        for step in range(steps):
            model(rows(4))
            if between:
                optimizer.step()
            if step == 12:
                prof.recount()
            model(rows(5))
            prof.step()
    report = prof.report()
    of_a_row = 2 * (2 * 6 * 10)
    assert report.total.matmul_flops == (steps * 9 - (0 if between else 4)) * of_a_row
    assert any("Part of 1 step" in note and ("not in the totals" in note) != between for note in report.notes)
