"""What becomes of a cgroup's files; the guest that sends them may say anything."""

from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from api import metrics_pb2
from shim.metrics import FILE_LIMIT, metrics

MAX = (1 << 64) - 1
# As Linux 6.1 writes them, shortened.
FILES = {
    "cpu.stat": b"usage_usec 1200\nuser_usec 800\nsystem_usec 400\nnr_periods 7\nnr_throttled 3\nthrottled_usec 99\n"
    b"nr_bursts 2\nburst_usec 5\n",
    "cpu.pressure": b"some avg10=1.50 avg60=0.20 avg300=0.03 total=1234\n"
    b"full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
    "memory.current": b"4096\n",
    "memory.peak": b"8192\n",
    "memory.max": b"max\n",
    "memory.swap.current": b"0\n",
    "memory.swap.max": b"max\n",
    "memory.stat": b"anon 100\nfile 200\nkernel 300\nkernel_stack 16384\nslab 7\nworkingset_refault_anon 9\n"
    b"pgfault 11\nthp_collapse_alloc 13\n",
    "memory.events": b"low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n",
    "memory.pressure": b"some avg10=0.00 avg60=0.00 avg300=0.00 total=77\n",
    "pids.current": b"3\n",
    "pids.max": b"max\n",
    "io.stat": b"254:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n254:0 \n7:3 rbytes=8 cost.usage=12\n",
    "io.pressure": b"",
    "hugetlb.2MB.current": b"0\n",
    "hugetlb.2MB.max": b"max\n",
}


def test_every_figure_comes_from_its_place() -> None:
    found = metrics(FILES)
    cpu = metrics_pb2.CPUStat(
        usage_usec=1200, user_usec=800, system_usec=400, nr_periods=7, nr_throttled=3, throttled_usec=99
    )
    cpu.nr_bursts, cpu.burst_usec = 2, 5
    cpu.psi.some.CopyFrom(metrics_pb2.PSIData(avg10=1.5, avg60=0.2, avg300=0.03, total=1234))
    cpu.psi.full.CopyFrom(metrics_pb2.PSIData(total=5))
    assert found.cpu == cpu
    memory = metrics_pb2.MemoryStat(anon=100, file=200, kernel_stack=16384, slab=7, pgfault=11, thp_collapse_alloc=13)
    memory.usage, memory.max_usage, memory.usage_limit, memory.swap_limit = 4096, 8192, MAX, MAX
    memory.psi.some.total = 77
    assert found.memory == memory
    assert found.memory_events == metrics_pb2.MemoryEvents(low=0, high=1, max=2, oom=3, oom_kill=4)
    assert found.pids == metrics_pb2.PidsStat(current=3, limit=MAX)
    entry = metrics_pb2.IOEntry
    assert list(found.io.usage) == [
        entry(major=254, minor=16, rbytes=1, wbytes=2, rios=3, wios=4),
        entry(major=254, minor=0),
        entry(major=7, minor=3, rbytes=8),
    ]
    assert list(found.hugetlb) == [metrics_pb2.HugeTlbStat(pagesize="2MB", current=0, max=MAX)]


def test_each_line_of_memory_stat_that_clients_know_is_a_field() -> None:
    """The field names are the kernel's keys, so none may be spelt otherwise."""
    fields = [field.name for field in metrics_pb2.MemoryStat.DESCRIPTOR.fields][:31]
    assert (fields[0], fields[-1]) == ("anon", "thp_collapse_alloc")
    content = "".join(f"{name} {number}\n" for number, name in enumerate(fields, start=1)).encode()
    found = metrics({"memory.stat": content}).memory
    assert [getattr(found, name) for name in fields] == [*range(1, 32)]


def test_what_clients_look_into_is_always_there() -> None:
    found = metrics_pb2.Metrics.FromString(metrics({}).SerializeToString())
    for part in ("pids", "cpu", "memory", "rdma", "io", "memory_events"):
        assert found.HasField(part)
    assert not found.hugetlb


def test_the_name_is_the_one_that_clients_know() -> None:
    assert metrics_pb2.Metrics.DESCRIPTOR.full_name == "io.containerd.cgroups.v2.Metrics"


def test_numbers_are_numbers_of_64_bits() -> None:
    for text, number in (
        (b"18446744073709551615", MAX),
        (b"18446744073709551616", MAX),
        (b"99999999999999999999", MAX),
        (b"9" * 5000, 0),
        (b"-1", 0),
        (b"1e9", 0),
        (b"1_000", 0),
        (b"\xd9\xa3", 0),
        (b"0x10", 0),
        (b"", 0),
        (b"maximum", 0),
        (b" 17 \n", 17),
    ):
        found = metrics({"pids.current": text, "memory.stat": b"anon " + text, "io.stat": b"1:2 rbytes=" + text})
        assert (found.pids.current, found.memory.anon) == (number, number)
        assert found.io.usage[0].rbytes == (0 if text.startswith(b" ") else number)


def test_a_percentage_is_finite() -> None:
    for text in (b"nan", b"inf", b"-1", b"1e999", b"x", b""):
        assert metrics({"cpu.pressure": b"some avg10=" + text}).cpu.psi.some.avg10 == 0.0


def test_no_file_counts_beyond_its_bound() -> None:
    line = b"1:1 rbytes=1\n"
    found = metrics({"io.stat": line * (10 * FILE_LIMIT // len(line)), "memory.stat": b"\n" * FILE_LIMIT + b"anon 5\n"})
    assert len(found.io.usage) <= FILE_LIMIT // len(line) + 1
    assert found.memory.anon == 0


_GARBAGE = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"some", b"anon", b"1:2", b"rbytes=", b"avg10=", b"\n", b" ", b"=", b"9" * 30, b"max"]))
    .map(b"".join),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*FILES, "hugetlb.1GB.current"]), _GARBAGE))
def test_whatever_the_guest_says_is_an_answer(files: dict[str, bytes]) -> None:
    found = metrics(files)
    assert _whole(metrics_pb2.Metrics.FromString(found.SerializeToString()), found)


def _whole(first: Message, second: Message) -> bool:
    return first == second
