"""Shards of datasets, built in the background of a worker. Needs no generator and no queue."""
