"""What instances and hosts use: text of the kernel becomes counters, two readings become metrics."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from eyrie.adapters import cgroups, gpus, usage
from eyrie.adapters.host_usage import HostReader, cpu_ticks, disk_counters, memory_bytes, network_counters
from eyrie.decide.host_metrics import HostMetric, host_metrics
from eyrie.decide.usage import utilisation
from eyrie.domain.names import EndpointKey
from eyrie.domain.usage import Filesystem, GpuLevel, HostUsage, InstanceUsage

KEY = EndpointKey("123456789012", "us-east-1", "churn")
BEFORE = InstanceUsage("i-1", KEY, "v", "ml.m5.large", 2000, 1024, "/s", 1_000_000, 500_000, 1 << 29, 40.0)


def test_cpu_is_a_hundred_a_core_and_memory_a_share_of_the_cap() -> None:
    after = replace(BEFORE, at_us=3_000_000, cpu_us=3_500_000)
    assert utilisation(BEFORE, after) == {"CPUUtilization": 150.0, "MemoryUtilization": 50.0, "DiskUtilization": 40.0}


def test_no_reading_passes_its_cap_and_counters_that_went_back_are_nothing() -> None:
    over = replace(BEFORE, at_us=1_100_000, cpu_us=900_000, memory_bytes=2 << 30)
    assert utilisation(BEFORE, over)["CPUUtilization"] == 200
    assert utilisation(BEFORE, over)["MemoryUtilization"] == 100
    back = replace(BEFORE, at_us=2_000_000, cpu_us=100)
    assert utilisation(BEFORE, back)["CPUUtilization"] == 0
    assert utilisation(BEFORE, BEFORE)["CPUUtilization"] == 0


def test_gpus_add_up() -> None:
    after = replace(BEFORE, at_us=2_000_000, gpus=(GpuLevel(60, 10), GpuLevel(90, 30)))
    found = utilisation(BEFORE, after)
    assert (found["GPUUtilization"], found["GPUMemoryUtilization"]) == (150, 40)


# --- control groups and processes -----------------------------------------------------------------------------------


def test_both_versions_of_control_groups_count(tmp_path: Path) -> None:
    one, two, memory = tmp_path / "one", tmp_path / "two", tmp_path / "memory"
    for folder, files in (
        (one, {"cpuacct.usage": "7000000\n"}),
        (memory, {"memory.usage_in_bytes": "900", "memory.stat": "cache 500\ntotal_inactive_file 300\n"}),
        (
            two,
            {"cpu.stat": "usage_usec 42\nuser_usec 1\n", "memory.current": "900", "memory.stat": "inactive_file 1\n"},
        ),
    ):
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    assert (cgroups.cpu_us((str(one), str(memory))), cgroups.memory_bytes((str(one), str(memory)))) == (7000, 600)
    assert (cgroups.cpu_us((str(two),)), cgroups.memory_bytes((str(two),))) == (42, 899)
    assert (cgroups.cpu_us((str(memory),)), cgroups.memory_bytes((str(one),))) == (None, None)


def test_a_cap_is_told_to_whichever_group_takes_it(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000")
    assert cgroups.cap_cpu((str(tmp_path / "none"), str(tmp_path)), 400)
    assert (tmp_path / "cpu.max").read_text() == "40000 100000"
    assert not cgroups.cap_cpu((str(tmp_path / "none"),), 400)


def test_a_process_and_what_descends_from_it() -> None:
    stat = "7 (a) b (c)) S 3 7 7 0 -1 4194560 100 0 0 0 10 20 3 4 20 0 1 0 100 1000 50"
    one = usage.process_usage(7, stat, "1000 50 20 1 0 30 0")
    tick_us = 1_000_000 // os.sysconf("SC_CLK_TCK")
    assert one == usage.ProcessUsage(7, 3, 37 * tick_us, 30 * os.sysconf("SC_PAGE_SIZE"))
    table = {pid: usage.ProcessUsage(pid, parent, 0, 0) for pid, parent in ((3, 1), (7, 3), (8, 7), (9, 1))}
    assert {p.pid for p in usage.below(table, 3)} == {3, 7, 8}
    assert usage.below(table, 99) == usage.below(table, None) == []
    for text in ("", "7 (x", "7 (x) S"):
        with pytest.raises((ValueError, IndexError)):
            usage.process_usage(7, text, "1 2 3")


def test_this_process_is_in_the_table_of_its_parent() -> None:
    assert any(p.cpu_us >= 0 for p in usage.process_table().values())
    parent = usage.process_table()[os.getppid()]
    assert parent.memory_bytes > 0


def test_gpus_by_the_processes_that_use_them() -> None:
    table = gpus.gpu_table(
        "GPU-a, 35, 2048, 8192\nGPU-b, [N/A], 0, 8192\nnonsense\n", "100, GPU-a\n101, GPU-a\n[N/A], GPU-b\n"
    )
    assert gpus.used_by(table, [101, 5]) == (GpuLevel(35.0, 25.0),)
    assert gpus.used_by(table, [5]) == ()
    assert table["GPU-b"].level == GpuLevel(0.0, 0.0)
    assert gpus.gpu_table("", "") == {}


# --- hosts ----------------------------------------------------------------------------------------------------------

DISKSTATS = """\
   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 254       0 vda 10 9 80 30 20 9 160 40 2 50 70 0 0 0 0 0 0
 254       1 vdb 0 0 0 0 0 0 0 0 0 0 0
"""
NET = """\
Inter-|   Receive               |  Transmit
 face |bytes    packets errs drop ...
  eth0: 100 5 1 2 0 0 0 0 200 6 3 4 0 0 0 0
  ifb0:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0   0
"""


def test_texts_of_the_kernel_become_counters() -> None:
    assert cpu_ticks("cpu  100 20 30 400 5 0 1 2 10 0\ncpu0 1 1\n") == {
        "user": 90, "nice": 20, "system": 30, "idle": 400, "iowait": 5, "irq": 0, "softirq": 1, "steal": 2, "guest": 10,
        "guest_nice": 0,
    }  # fmt: skip
    assert cpu_ticks("") == {}
    assert memory_bytes("MemTotal:  8 kB\nHugePages_Total:   0\nodd\n") == {"MemTotal": 8192}
    assert disk_counters(DISKSTATS) == {
        "vda": {"reads": 10, "read_bytes": 80 * 512, "read_time": 30, "writes": 20, "write_bytes": 160 * 512,
                "write_time": 40, "iops_in_progress": 2, "io_time": 50}
    }  # fmt: skip
    assert network_counters(NET) == {
        "eth0": {"bytes_recv": 100, "packets_recv": 5, "err_in": 1, "drop_in": 2, "bytes_sent": 200, "packets_sent": 6,
                 "err_out": 3, "drop_out": 4}
    }  # fmt: skip


def named(found: list[HostMetric], name: str) -> HostMetric:
    (one,) = [metric for metric in found if metric.name == name]
    return one


def test_two_readings_become_what_an_agent_sends() -> None:
    disk = Filesystem("/", "vda", "ext4", 1000, 300, 600, 50, 20)
    first = HostUsage(
        "box", 0, {"user": 10, "idle": 90}, {"MemTotal": 100, "MemAvailable": 40}, (disk,),
        {"vda": {"reads": 5, "read_bytes": 100, "iops_in_progress": 9}}, {"eth0": {"bytes_sent": 50, "err_in": 7}},
    )  # fmt: skip
    second = replace(
        first, cpu={"user": 40, "idle": 160},
        disks={"vda": {"reads": 8, "read_bytes": 612, "iops_in_progress": 1}, "new": {"reads": 4}},
        networks={"eth0": {"bytes_sent": 80, "err_in": 3}},
    )  # fmt: skip
    found = host_metrics(first, second)
    host = ("host", "box")
    assert named(found, "cpu_usage_user") == ("cpu_usage_user", 30.0, "Percent", (("cpu", "cpu-total"), host))
    assert named(found, "cpu_usage_active").value == 30
    assert named(found, "mem_used_percent") == ("mem_used_percent", 60.0, "Percent", (host,))
    where = (("device", "vda"), ("fstype", "ext4"), host, ("path", "/"))
    assert named(found, "disk_used_percent") == ("disk_used_percent", pytest.approx(66.67, abs=0.01), "Percent", where)
    assert named(found, "diskio_read_bytes") == ("diskio_read_bytes", 512.0, "Bytes", (host, ("name", "vda")))
    assert named(found, "diskio_iops_in_progress").value == 1
    assert named(found, "net_bytes_sent") == ("net_bytes_sent", 30.0, "Bytes", (host, ("interface", "eth0")))
    names = {metric.name for metric in found}
    assert "net_err_in" not in names  # it went back: the interface came anew
    assert [m.value for m in found if m.name == "diskio_reads"] == [3]  # nothing yet of a disk that has just come


def test_this_host_can_be_read() -> None:
    reader = HostReader()
    found = {metric.name: metric.value for metric in host_metrics(reader.read(), reader.read())}
    assert 0 < found["mem_used_percent"] < 100
    assert HostReader(Path("/nonexistent")).read().cpu == {}
