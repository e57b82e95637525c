"""Other queues on PostgreSQL, started as their documentation says. Jobs do the service's work.

They have an environment of their own, so that their requirements don't change the service's.
"""
