"""The demo: real mail through all of Corral, and a check of what arrived. `python -m examples.demo`, or `tox -e demo`."""
