"""What Corral's own processes share through the store: their records, and the minutes of queues.

BullMQ knows nothing of it: the keys begin with `corral:<prefix>:`. No job is lost with them.
"""
