"""The code of the pattern document, without its bugs. The rendered service is compared with it.

It runs in the service's environment, with the service's settings and engines.
"""
