"""The parts of `benches/run`: processes, proxies, measures, the check of closewatch's counters, the report."""
