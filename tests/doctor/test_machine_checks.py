"""Machines that are not as they should be."""

import os
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch

from genselfdiff import info
from genselfdiff.doctor import machine_checks
from genselfdiff.doctor.limits import Limits, limits_here
from genselfdiff.kernels import native


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        ({}, Limits(None, None)),
        (
            {
                "proc/self/cgroup": "0::/slice/job\n",
                "sys/fs/cgroup/slice/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/slice/job/cpu.max": "max 100000\n",
                "sys/fs/cgroup/slice/job/memory.max": f"{2**31}\n",
            },
            Limits(1.5, 2**31),
        ),
        (  # a container that sees its own group at the base
            {
                "proc/self/cgroup": "0::/of/the/host\n",
                "sys/fs/cgroup/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/memory.max": "max\n",
            },
            Limits(4.0, None),
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/slurm/job\n3:cpu,cpuacct:/slurm/job\n",
                "sys/fs/cgroup/cpu,cpuacct/slurm/job/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu,cpuacct/slurm/job/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/memory/slurm/memory.limit_in_bytes": f"{2**33}\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            Limits(2.0, 2**33),
        ),
    ],
)
def test_limits_of_control_groups(tmp_path, files, limits):
    assert limits_here(write(tmp_path, files)) == limits


def test_more_threads_than_the_control_group_grants(tmp_path, monkeypatch, found):
    write(
        tmp_path,
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"},
    )
    monkeypatch.setattr(machine_checks, "usable_cores", lambda: 64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(os, "getloadavg", lambda: (200.0, 0.0, 0.0))
    findings = found(machine_checks.processors(tmp_path))
    assert findings["threads"].grade == "warning"
    assert "OMP_NUM_THREADS=2:" in findings["threads"].advice
    assert "grants 2" in findings["processor"].text
    assert findings["load"].grade == "warning"


def test_one_core_is_no_cores(monkeypatch, found):
    for module in (machine_checks, info):
        monkeypatch.setattr(module, "usable_cores", lambda: 1)
    monkeypatch.setattr(machine_checks, "limits_here", lambda root: Limits(None, None))
    assert found(machine_checks.processors())["processor"].text.endswith(", 1 core")
    assert dict(info.describe())["processor"].endswith(", 1 core")


def test_most_processors_lie_idle(monkeypatch, found):
    monkeypatch.setattr(machine_checks, "usable_cores", lambda: 16)
    monkeypatch.setattr(machine_checks, "limits_here", lambda root: Limits(None, None))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    findings = found(machine_checks.processors())
    assert findings["threads"].text == "1 for 16 processors"
    assert findings["threads"].grade == "warning"


@pytest.mark.parametrize(("limit", "grade"), [(2**29, "wrong"), (2**31, "warning"), (0, "ok")])
def test_memory_that_may_be_used(tmp_path, limit, grade, found):
    write(
        tmp_path,
        {
            "proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {2**24} kB\n",
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": f"{limit or 'max'}\n",
        },
    )
    assert found(machine_checks.memory(tmp_path))["memory"].grade == grade


def test_little_shared_memory(tmp_path, monkeypatch, found):
    status = SimpleNamespace(f_bavail=2**14, f_frsize=2**12)  # 64 MiB, as docker gives
    monkeypatch.setattr(os, "statvfs", lambda folder: status)
    finding = found(machine_checks.shared_memory(tmp_path))["shared memory"]
    assert (finding.grade, finding.text[:8]) == ("warning", "0.06 GiB")


def test_kernels_that_are_missing_or_refused(monkeypatch, found):
    monkeypatch.setattr(native, "_module", None)
    monkeypatch.setattr(native, "_problem", "they were not built")
    monkeypatch.delenv("GSD_CPU_ISA", raising=False)
    finding = found(machine_checks.kernels_in_use())["kernels"]
    assert finding.grade == "warning"
    assert "-m pip install" in finding.advice
    monkeypatch.setattr(native, "_problem", native.REFUSED)
    assert found(machine_checks.kernels_in_use())["kernels"].advice == "unset GSD_KERNELS"
    monkeypatch.setenv("GSD_CPU_ISA", "amx")
    assert found(machine_checks.kernels_in_use())["kernels"].grade == "wrong"


@pytest.mark.parametrize(
    ("there", "grade"), [("3.6.0", "ok"), ("3.4.0", "warning"), (None, "warning")]
)
def test_triton_is_the_one_of_torch(there, grade, monkeypatch, found):
    def version(name):
        if there is None:
            raise metadata.PackageNotFoundError
        return there

    needs = ["jinja2", 'triton==3.6.0; platform_system != "None"', 'opt-triton; extra == "opt"']
    monkeypatch.setattr(metadata, "requires", lambda name: needs)
    monkeypatch.setattr(metadata, "version", version)
    finding = found(machine_checks.triton())["torch"]
    assert finding.grade == grade
    assert grade == "ok" or finding.advice == "pip install 'triton==3.6.0'"


@pytest.mark.parametrize(("cuda", "grade"), [(None, "warning"), ("13.0", "wrong")])
def test_a_driver_that_torch_does_not_use(tmp_path, cuda, grade, monkeypatch, found):
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13\n"
    write(tmp_path, {"proc/driver/nvidia/version": text})
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    finding = found(machine_checks.gpus(tmp_path))["gpu"]
    assert finding.grade == grade
    assert "470.57.02" in finding.text


@pytest.mark.parametrize(
    ("major", "free", "grade", "said"),
    [(9, 70, "ok", "driver 580.1"), (9, 10, "warning", "10 of 80 GiB"), (7, 70, "warning", "7.5")],
)
def test_gpus(tmp_path, major, free, grade, said, monkeypatch, found):
    write(tmp_path, {"proc/driver/nvidia/version": "NVRM: Kernel Module  580.1\n"})
    gpu = SimpleNamespace(name="GPU", major=major, minor=5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free * 2**30, 80 * 2**30))
    finding = found(machine_checks.gpus(tmp_path))["gpu 0"]
    assert finding.grade == grade
    assert said in finding.text
