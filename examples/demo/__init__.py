"""The demo: real mail through all of Corral, and a check of what arrived. Run `python -m examples.demo`."""
