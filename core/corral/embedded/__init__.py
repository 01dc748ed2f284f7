"""The embedded store: a Valkey server that starts with its first user and stops with its last."""
