"""The store: Redis or Valkey, BullMQ's keys in it, and the scripts that change them.

This package knows no payload models, no hooks and no catalog.
"""
