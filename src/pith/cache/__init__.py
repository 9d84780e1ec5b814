"""Making the key-value cache smaller: evictions, storages and readings, one method a file.

Each answers one question of the attention runtime, so one of each combines with any of the others.
"""
