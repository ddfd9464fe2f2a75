"""Celery: its broker carries the word of jobs to its workers, which run them as ours do.

Celery is no `Engine`: an engine runs what its own process has claimed, and over a broker the claim is the
worker's. So the two ends are apart. The service has a `Broker` behind an `Outbox` (`broker`); the worker has
the usual dispatcher and lanes, whose store claims what messages ask for (`claims`, `pool`). Nothing here is
imported unless it is asked for.
"""
