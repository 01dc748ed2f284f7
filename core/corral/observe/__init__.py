"""What an operator sees of a process from outside. It watches; nothing here decides anything."""
