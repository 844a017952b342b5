"""What `benches/run` is made of: processes, proxies, measures, the check of closewatch's counters, the report."""
