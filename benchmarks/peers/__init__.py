"""Other queues on PostgreSQL, each as its documentation starts it, with the service's ORM work.

They have an environment of their own, so that what they need doesn't change the service's.
"""
