"""A manifest of recordings, on one machine or on a cluster: `stapes batch`. Read driver.py first (docs/scale.md).

The driver sorts the manifest into shards and chunks (plan.py). An engine (engines/: local, Ray, Dask, Spark) carries
chunks to workers. A worker counts a try, transcribes, writes outputs, and writes what became of each row (chunk.py).
"""
