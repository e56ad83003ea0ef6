"""A name finds its device or an error that says which devices it could be; never another device."""

from __future__ import annotations

import subprocess
import sys

import pytest

import attnprof
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError

DEVICES = attnprof.devices()


@pytest.mark.parametrize("spec", DEVICES, ids=lambda d: d.id)
def test_every_name_of_a_device_finds_it(spec: DeviceSpec) -> None:
    for name in (spec.id, *spec.aliases, *spec.reported_as):
        assert attnprof.device(name) is spec
        assert attnprof.device(name.upper()) is spec
        assert attnprof.device(f" {name.replace('-', ' ')} ") is spec


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 PCIe 80GB", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200-sxm"),
        ("NVIDIA H200 NVL", "h200-nvl"),
        ("NVIDIA H20", "h20"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40", "l40"),
        ("NVIDIA L40S", "l40s"),
        ("L40S 48 GB", "l40s"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA A100-SXM4-40GB", "a100-sxm-40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"),
        ("NVIDIA A100-PCIE-40GB", "a100-pcie-40gb"),
        ("Tesla T4", "t4"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("RTX 4090", "rtx-4090"),
        ("NVIDIA GB300", "gb300"),
        ("NVIDIA B300 SXM6 AC", "b300"),
        ("NVIDIA GH200 480GB", "gh200-96gb"),
        ("NVIDIA GH200 144G HBM3e", "gh200-144gb"),
        ("AMD Instinct MI250X", "mi250x-gcd"),
        ("AMD Instinct MI300X VF", "mi300x"),
        ("AMD Instinct MI300A", "mi300a"),
        ("TPU v5 lite", "tpu-v5e"),
        ("TPU v5", "tpu-v5p"),
    ],
)
def test_what_drivers_report(name: str, expected: str) -> None:
    assert attnprof.device(name).id == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h100sxm", "h100-sxm"),
        ("RTX4090", "rtx-4090"),
        ("NVIDIA RTX4090", "rtx-4090"),
        ("a100sxm80gb", "a100-sxm-80gb"),
        ("MI 300X", "mi300x"),
        ("L40 S", "l40s"),
    ],
)
def test_separators_do_not_matter(name: str, expected: str) -> None:
    assert attnprof.device(name).id == expected


@pytest.mark.parametrize(
    ("name", "variants"),
    [
        ("h100", "h100-nvl, h100-pcie or h100-sxm"),
        ("NVIDIA H100", "h100-nvl, h100-pcie or h100-sxm"),
        ("h100 80gb", "h100-pcie or h100-sxm"),
        ("h200", "h200-nvl or h200-sxm"),
        ("a100", "a100-pcie-40gb, a100-pcie-80gb, a100-sxm-40gb or a100-sxm-80gb"),
        ("A100-80GB", "a100-pcie-80gb or a100-sxm-80gb"),
        ("mi250x", "mi250x-gcd or mi250x-oam"),
        ("gh200", "gh200-144gb or gh200-96gb"),
        ("rtx pro 6000", "rtx-pro-6000-server or rtx-pro-6000-workstation"),
    ],
)
def test_a_name_of_several_devices_lists_them(name: str, variants: str) -> None:
    with pytest.raises(AttnprofError) as caught:
        attnprof.device(name)
    assert str(caught.value) == f'"{name}" is several devices: {variants}.'


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("h100-sxn", "h100-sxm"),
        ("NVIDIA GeForce RTX 4080 SUPER", "rtx-4080"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "rtx-4090"),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "a100-sxm-80gb"),
        ("NVIDIA A100-SXM-64GB", "a100-sxm-40gb"),
        ("NVIDIA H20-3e", "h20"),
        ("NVIDIA H800 PCIe", "h100-pcie"),
        ("Apple M1 Max", "m1-max-32core"),  # 24 or 32 cores: the name does not say
        ("Orin", "agx-orin-64gb"),
        ("Intel(R) Data Center GPU Max 1550", "max-1550-oam"),  # usually one of its two stacks
    ],
)
def test_a_device_that_is_not_known_is_only_suggested(name: str, suggested: str) -> None:
    with pytest.raises(AttnprofError) as caught:
        attnprof.device(name)
    message = str(caught.value)
    assert message.startswith(f'unknown device "{name}". Did you mean {suggested}')
    assert message.endswith("? `attnprof devices` lists all 66.")


@pytest.mark.parametrize("name", ["AMD Radeon Graphics", "NVIDIA", "-", "🙂"])
def test_nothing_close_is_no_suggestion(name: str) -> None:
    with pytest.raises(AttnprofError) as caught:
        attnprof.device(name)
    assert str(caught.value) == f'unknown device "{name}". `attnprof devices` lists all 66.'


@pytest.mark.parametrize("name", ["cpu", "CPU", "GPU", "cuda", "local"])
def test_the_machine_at_hand_is_measured(name: str) -> None:
    with pytest.raises(AttnprofError) as caught:
        attnprof.device(name)
    told = '`attnprof calibrate` measures this machine, the device "this" then.'
    assert str(caught.value) == f'unknown device "{name}". {told}'


@pytest.mark.parametrize("name", ["", "  ", None, 3])
def test_no_name_at_all(name: object) -> None:
    with pytest.raises(AttnprofError, match="a device is a name such as h100-sxm"):
        attnprof.device(name)  # type: ignore[arg-type]


def test_devices_need_no_torch() -> None:
    code = "import sys, attnprof; attnprof.device('NVIDIA L4'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
