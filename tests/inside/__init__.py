"""What `test_deploys.py` runs in rendered services, with what those have installed."""
