"""Document D: attention with frozen query and key projections, its tables and its claims."""

from __future__ import annotations

from fractions import Fraction

import torch

from attnprof import zoo
from claims.of_attention import block
from claims.runs import measured, states
from claims.topics import CLAIMS, Topic, compared, exact, giga, holds, percent, said, value

D, H = 768, 12
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)


def operations() -> Topic:
    """Table 3.3."""
    rows = []
    for N in LENGTHS:
        P, A = N * D * D, N * N * D
        full = measured("mha", N, d=D, H=H)
        frozen, performer = measured("orthogonal", N, d=D, H=H), measured("performer", N, d=D, H=H, r=266)
        assert (full.forward, full.backward, frozen.backward) == (8 * P + 4 * A, 16 * P + 8 * A, 12 * P + 8 * A)
        assert performer.forward == 8 * P + 8 * N * 266 * D + 2 * N * 266 * H
        columns = [("std", full.forward), ("ortho_bwd", frozen.backward), ("performer", performer.forward)]
        cells = [str(N)]
        assert compared(f"D.ops.ortho_fwd.N{N}", 2) == "reproduced"
        for column, flops in columns:
            fact = f"D.ops.{column}.N{N}"
            assert compared(fact, 2) == "reproduced"
            cells += [f"{said(fact).document:.2f}", giga(flops)]
        rows.append([*cells, f"{frozen.backward / 10**9 / float(said(f'D.ops.ortho_bwd.N{N}').document):.0f}×"])
    for N, dearer in ((534, True), (535, False)):
        of_performer = measured("performer", N, d=D, H=H, r=266).forward
        assert (of_performer > measured("mha", N, d=D, H=H).forward) == dearer
    return Topic(
        "Table of operations by length (D, table 3.3)",
        "In 10⁹, d = 768, h = 12. D's cells are N²d + Nd² (attention; forward with frozen queries and keys too), Nd² "
        "(its backward) and Nd² + Nd log₂ d (Performer): growth with every coefficient 1. As that all 28 cells are "
        "reproduced; as operation counts they are wrong. Beside each is what is measured, Performer with r = 266.",
        (
            "N",
            "D: attention",
            "forward",
            "D: backward, frozen",
            "backward, frozen",
            "D: Performer",
            "Performer",
            "D's backward is too small by",
        ),
        rows,
        "Forward 8 Nd² + 4 N²d, backward 16 Nd² + 8 N²d, with frozen queries and keys 12 Nd² + 8 N²d, Performer "
        "8 Nd² + 8 N r d + 2 N r h: equal to the integer at every length. At N = 512 Performer is the dearer one; it "
        "becomes cheaper at N = 535, since 2 r + r h / (2 d) = 534.08.",
    )


def speedups() -> Topic:
    """Table 4.1."""
    rows = []
    for N, d in [(n, D) for n in LENGTHS[:6]] + [(512, 512), (1024, 512), (2048, 1024)]:
        at = f"N{N}.d{d}"
        assert compared(f"D.speedup.table.{at}", 1) == "reproduced"
        rows.append(
            [f"{N}, {d}", f"{said(f'D.speedup.table.{at}').document}%"]
            + [
                f"{float(value(f'D.speedup.{column}.{at}')):.1f}%"
                for column in ("table", "text_rule", "true_attn_reduction", "true_attn", "true_block")
            ]
        )
    return Topic(
        "Table of training speed-up (D, table 4.1)",
        "D's nine figures are (9d + N) / 14(N + d): forward 1, backward 2, optimizer 1/2, of which the backward is to "
        "fall by d / (N + d) and the optimizer by half. Reproduced, and wrong: the text's ratio is N / (N + d), which "
        "rises with N; and the figures are reductions, 1 - new/old, under the name of speed-ups, old/new - 1.",
        ("N, d", "D", "D's model", "by D's text", "layer, reduction", "layer, speed-up", "block, speed-up"),
        rows,
        "The last three columns are measured, matmul FLOPs of forward and backward: 4d / (24d + 12N), 4d / (20d + 12N) "
        "and, with a feed-forward network of width 4d, 4d / (68d + 12N). A layer gains at most 20%, a block 5.9%.",
    )


def frozen_backward() -> Topic:
    """The claim that the backward becomes O(N d²)."""
    rows = []
    for N in LENGTHS[:6]:
        P, A = N * D * D, N * N * D
        cells = [str(N), giga(P)]
        for x, name, coefficients in (
            ("xgrad", "explicit", (16, 8, 12, 8)),
            ("xgrad", "sdpa", (16, 10, 12, 10)),
            ("xconst", "explicit", (10, 8, 6, 2)),
            ("xconst", "sdpa", (10, 10, 6, 10)),
        ):
            full, frozen = (value(f"D.bwd.{name}.{weights}.{x}.N{N}") for weights in ("train", "frozen"))
            a, b, c, d = coefficients
            assert (full, frozen) == (a * P + b * A, c * P + d * A)
            cells.append(f"{giga(full)} to {giga(frozen)} (-{percent(1 - Fraction(frozen) / Fraction(full))})")
        rows.append(cells)
    return Topic(
        "Backward with frozen queries and keys (D: “becomes O(Nd²)”)",
        "Wrong. GFLOP of the backward, d = 768, h = 12, trained to frozen, what a fused backward computes again "
        "included. x is the layer's input: a first layer's needs no gradient, all others' do.",
        ("N", "D: Nd²", "written out", "fused", "written out, x constant", "fused, x constant"),
        rows,
        "Written out 16 Nd² + 8 N²d becomes 12 Nd² + 8 N²d: two weight gradients are saved and no N² term. Only where "
        "x is constant does the gradient of the scores fall away, to 6 Nd² + 2 N²d; in a fused backward not even then.",
    )


def gradients() -> Topic:
    """Claims on gradients and memory."""
    share = [
        1 - Fraction(measured("orthogonal", n, d=D, H=H).backward, measured("mha", n, d=D, H=H).backward)
        for n in (128, 4096)
    ]
    assert share == [Fraction(D, 4 * D + 2 * n) for n in (128, 4096)]
    half, single = (
        {name: sum(states(name, D, dtype, H=4).values()) for name in ("mha", "orthogonal")}
        for dtype in ("fp16", "fp32")
    )
    assert 1 - Fraction(half["orthogonal"], half["mha"]) == 1 - Fraction(single["orthogonal"], single["mha"])
    saved = {name: measured(name, 512, d=D, H=H).saved for name in ("mha", "orthogonal")}
    full, frozen = (sum(states("transformer", D, "fp32", H=4, L=1, mixer=name).values()) for name in single)
    activations = {B: block("mha", 512, D, H, B=B, activation="gelu").saved for B in (1, 32)}
    whole = {B: percent(Fraction(full - frozen, full + bytes_)) for B, bytes_ in activations.items()}
    return Topic(
        "Gradients and memory with frozen queries and keys (D)",
        "d = 768, h = 12. States are parameters, gradients and Adam's two moments.",
        CLAIMS,
        [
            ("dL/dW_Q is zero", "0", "not computed; not zero when it is", holds(_gradient_flows(), "wrong")),
            (
                "gradient work",
                "-50%",
                f"-{percent(share[0])} (N = 128) to -{percent(share[1])} (N = 4096)",
                "wrong: d / (4d + 2N) of the backward",
            ),
            (
                "memory of the layer's states",
                "-37.5%",
                f"-{float(value('D.mem.ratio.d768')):g}%",
                holds(value("D.mem.ratio.d768") == Fraction(75, 2), "reproduced, in fp16 and fp32"),
            ),
            (
                "the same, mixed precision",
                "-37.5%",
                f"-{float(value('D.mem.amp_ratio')):.2f}%; frozen with a master copy "
                f"-{float(value('D.mem.amp_ratio_frozen_fp32_master')):.2f}%",
                "misleading (by arithmetic)",
            ),
            ("the same, whole block", "-37.5%", f"-{float(value('D.mem.block_ratio')):.2f}%", "misleading"),
            (
                "the same, block with saved activations, N = 512",
                "-37.5%",
                f"-{whole[1]} (B = 1), -{whole[32]} (B = 32)",
                "misleading",
            ),
            (
                "saved activations",
                "fewer",
                f"{exact(saved['mha'])} and {exact(saved['orthogonal'])} bytes",
                holds(saved["mha"] == saved["orthogonal"], "wrong: the same, x needs a gradient"),
            ),
            *(
                (
                    f"states of a layer, d = {d}, MiB",
                    " / ".join(str(said(f"D.mem.{k}.d{d}").document) for k in parts),
                    " / ".join(f"{float(value(f'D.mem.{k}.d{d}')):g}" for k in parts),
                    holds(all(compared(f"D.mem.{k}.d{d}", 2) == "reproduced" for k in parts), "reproduced, as MiB"),
                )
                for d in (512, 768, 1024, 1536, 2048)
                for parts in [("std", "ortho", "saved")]
            ),
            *(
                (f"saved, {name}", f"{said(fact).document} MB", f"{float(value(fact)):.2f} MiB", verdict)
                for name, fact, verdict in (
                    ("12 layers of 768", "D.mem.12layers", "wrong: 12 × 7 for 12 × 6.75"),
                    ("24 layers of 768", "D.mem.24layers", "wrong: 24 × 7 for 24 × 6.75"),
                    ("GPT-2 medium", "D.mem.gpt2m", "wrong"),
                    ("BERT-base", "D.mem.bert", "about right; it says 84 elsewhere"),
                )
            ),
            *(
                (
                    f"scores of one head, N = {n}, fp16",
                    f"{document} MB",
                    f"{float(value(f'D.scores_mb.N{n}')):.3f} MB; 12 heads "
                    f"{float(value(f'D.scores_mib_h12.N{n}')):.0f} MiB",
                    holds(
                        0 <= value(f"D.scores_mb.N{n}") - Fraction(str(document)) < (1 if document > 100 else 0.1),
                        "reproduced, cut off; wrong for a layer",
                    ),
                )
                for n in (4096, 8192, 16384)
                for document in [said(f"D.scores_mb.N{n}").document]
            ),
        ],
    )


def _gradient_flows() -> bool:
    """Frozen, the weights get none and the input gets exactly the same as when they are trained."""
    torch.manual_seed(0)
    net: torch.nn.Module = zoo.build("mha", d=8, H=2)
    gradients = []
    for trained in (True, False):
        for name in ("q_proj", "k_proj"):
            net.get_submodule(name).requires_grad_(trained)
        x = torch.linspace(-1, 1, 40).view(1, 5, 8).requires_grad_()
        net.zero_grad()
        net(x).square().sum().backward()
        weight = net.get_parameter("q_proj.weight").grad
        gradients.append((x.grad, weight))
    (first, of_weight), (second, none) = gradients
    return torch.equal(first, second) and bool(of_weight.norm() > 0) and none is None


def models() -> Topic:
    """Parameters and scenarios."""
    rows = [
        (name, f"{float(said(fact).document) / 1e6:g} M", exact(value(fact)), verdict)
        for name, fact, verdict in (
            ("BERT-base", "D.params.bert_enc", "the encoder, about"),
            ("BERT-base, trainable with frozen queries and keys", "D.params.bert_enc_frozen", "the encoder, about"),
            ("BERT-base, whole", "D.params.bert_full", "wrong: embeddings and pooler are missing"),
            ("GPT-2 medium", "D.params.gpt2m", "wrong"),
            ("GPT-2 medium, trainable with frozen queries and keys", "D.params.gpt2m_frozen", "wrong"),
        )
    ]
    rows.append(
        (
            "trainable parameters of a block",
            "-50%",
            f"-{float(value('D.trainable_reduction.block')):.2f}%",
            "wrong: -50% of the four projections",
        )
    )
    for name, N, d in (
        ("bert", 512, D),
        ("gpt2m", 1024, 1024),
        ("vit", 196, D),
        ("N8192", 8192, D),
        ("N128", 128, D),
        ("N1024", 1024, D),
    ):
        table, true = value(f"D.scenario.speedup.{name}"), value(f"D.scenario.speedup_true_block.{name}")
        full, frozen = block("mha", N, d, 4).step, block("orthogonal", N, d, 4).step
        rows.append(
            (
                f"speed-up of training, N = {N}, d = {d}",
                f"{said(f'D.scenario.speedup.{name}').document}%",
                f"{float(true):.1f}%",
                holds(100 * (Fraction(full, frozen) - 1) == true, f"wrong; by D's own table {float(table):.1f}%"),
            )
        )
    return Topic("Published models (D)", "", CLAIMS, rows)


def synthesizer() -> Topic:
    """Performer and Synthesizer, as D compares with them."""
    N, d, h = 512, D, H
    random = measured("synthesizer-random", N, d=d, H=h, N=N)
    assert random.forward == 4 * N * d * d + 2 * N * N * d
    ratios = [
        Fraction(value(f"D.performer.r{r}")) / 2 / Fraction(str(said(f"D.performer.r{r}").document)) for r in (64, 266)
    ]
    rows = [
        (
            "Performer is O(Nd² + Nd log d)",
            "no r",
            f"8 Nd² + 8 N r d + 2 N r h, {exact(value('D.performer.r266'))} at N = 1024, r = 266",
            "wrong: r random features cost 8 N r d",
        ),
        (
            "Performer, multiply-adds against D's formula",
            "1×",
            " to ".join(f"{float(ratio):.2f}×" for ratio in ratios) + " (r = 64 to 266)",
            "wrong",
        ),
        (
            "Synthesizer has 4d² parameters and no query and key projections",
            exact(said("D.synth.params").document),
            exact(random.trainable),
            holds(random.trainable == h * N * N + 2 * d * d, "wrong: 2d² and the scores, h N²"),
        ),
        ("Synthesizer, forward", "O(N²d + Nd²)", "4 Nd² + 2 N²d", "reproduced"),
    ]
    return Topic("Performer and Synthesizer (D)", "", CLAIMS, rows)


TOPICS = (operations, speedups, frozen_backward, gradients, models, synthesizer)
