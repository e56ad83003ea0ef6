"""What the classifier may cost. Counts are exact, so the limits are hard and the lock file has no tolerance."""

import pytest
import torch
from classifier import VOCABULARY, build


@pytest.fixture(scope="session")
def model():
    return build()[0]


@pytest.mark.limit_flops("111 MFLOP")
@pytest.mark.limit_flops("14 MMAC", module="encoder.layers.0")
@pytest.mark.limit_unpriced(0)
def test_one_answer(model):
    model(torch.zeros(1, 64, dtype=torch.long))


@pytest.mark.limit_memory_bytes("12 MB", kind="saved")
def test_a_step_fits_the_smallest_card(model):
    model(torch.zeros(2, 64, dtype=torch.long)).sum().backward()
    model.zero_grad()


def test_forward_costs_what_was_agreed(attnprof):
    attnprof.check(attnprof.run(*build()), "forward")


def test_training_costs_what_was_agreed(attnprof):
    attnprof.check(attnprof.run(*build(), optimizer="adamw"), "training")


@pytest.mark.parametrize("length", [16, 256])
def test_other_lengths_cost_what_was_agreed(attnprof, model, length):
    attnprof.check(attnprof.run(model, (torch.zeros(1, length, dtype=torch.long),)), f"forward-{length}")


def test_most_of_the_work_is_in_the_encoder(attnprof):
    report = attnprof.run(*build())
    assert report.by_module()["encoder"].flops > 0.99 * report.total.flops
    with attnprof.budget(flops="1 MFLOP", module="head"):
        build()[0](torch.randint(VOCABULARY, (1, 64)))
