"""The demo: the application with its worker, its mail and its partners, driven over HTTP, and
checked.

Run `python -m examples.saas.demo`. It ends with 0 only if everything happened.
"""
