"""The work of `make gpu` on a machine with a CUDA GPU: the tests of acquisition, and measurements of its speed.

It needs a Python with torch and pytest, and nothing else: no environment of ours, no network, no package of a stage.
"""
