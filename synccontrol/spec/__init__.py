"""What is asked for, as data: settings, regions and the specification of an image."""
