"""What Corral's own processes tell each other through the store: heartbeats, which queues they
have, finished minutes.

Nothing here is BullMQ's, and no other client reads it: the keys are `corral:<prefix>:…`. All of it
may be lost.
"""
