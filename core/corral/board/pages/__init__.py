"""The handlers: one module per page, and one per group of actions.

Each handler's docstring says what it costs the store.
"""
