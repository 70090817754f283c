"""Engines that carry chunks to workers: processes of this machine, Ray, Dask, Spark. Each has one function, `run`."""
