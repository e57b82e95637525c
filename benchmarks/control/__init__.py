"""The pattern document's own code, its bugs fixed: what the rendered service is compared with.

It runs in the service's environment, with the service's settings and engines.
"""
