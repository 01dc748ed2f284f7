"""The demo: drives the application over HTTP, with worker, mail and partners, and checks it.

Run `python -m examples.saas.demo`. It ends with 0 only if everything happened.
"""
