"""`python -m tests.bench`: the benchmark, from its parts; README of it: docs/benchmarks.md.

variants.py    what is compared: runc, and qemubox in named configurations
place.py       where it runs: a cell with a containerd, an installed qemubox and a template for each variant
turns.py       who is measured when: one run of each in turn
starts.py      whole `ctr run`s, one after the other and several at once, and the phases of machines
bundle.py      what containerd hands to a shim, made here
calls.py       the calls of one container's life, on the shim's own socket
commands.py    the shim binary's jobs, beside an interpreter that does nothing
output.py      100 MB through standard output
polls.py       Stats, asked again and again: time, and processor time (processor.py)
density.py     many idle containers: memory, the time of each start, whether all answer
memory.py      what a process has for itself
figures.py     medians, percentiles, ratios; pure
results.py     all that was measured, and its JSON
aims.py        what the project wants to reach, against the results; pure
report.py      the results in Markdown; pure
plot.py        the results as PNG and SVG
main.py        the command line, and the order of it all
"""

import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_CHECKOUT), str(_CHECKOUT / "tests" / "vm")]  # for harness

from tests.bench.main import main  # noqa: E402 - only now can it be found

main()
