"""What `copier update` runs in a service, before and after its own work."""
