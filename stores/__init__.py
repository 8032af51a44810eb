"""The store: records, Parquet shards, keys, summaries, snapshots, files. Knows no Beam and no torch."""
