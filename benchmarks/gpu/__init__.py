"""What `make gpu` runs on a machine with a CUDA GPU: the tests of acquisition there, and how fast it is.

It needs a Python with torch and pytest, and nothing else: no environment of ours, no network, no package of a stage.
"""
