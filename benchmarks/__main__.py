"""Every benchmark, one after the other: `make bench`, or `python -m benchmarks`."""

from benchmarks import drain, enqueue, web

for part in (enqueue, drain, web):
    part.main()
