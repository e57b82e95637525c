"""What measures a rendered service, from inside: it is copied there as `bench`."""
