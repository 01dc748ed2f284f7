"""The developer's server: a Valkey that starts with the first process that needs it and ends with
the last.
"""
