"""The handlers, one module per page. Each says in its docstring what it costs the store."""
