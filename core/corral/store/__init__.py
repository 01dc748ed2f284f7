"""The store: Redis or Valkey, and BullMQ's keys.

It knows no payload models, no hooks and no catalog.
"""
