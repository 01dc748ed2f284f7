"""An example application: an HTTP API whose background work runs on six queues of Corral.

It enqueues in one file, `listeners.py`, through the `JobScheduler` port, in the transaction that
stores what the job is about. What the queues need from it are hooks, in `plugin.py`. `python -m
examples.saas.demo` runs and checks all of it.
"""
