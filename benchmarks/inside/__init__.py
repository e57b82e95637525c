"""Measures a rendered service from inside. It is copied there as the package `bench`."""
