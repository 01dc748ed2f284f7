"""Logs, metrics, traces, health and probes: what operators see of a process. It decides nothing."""
