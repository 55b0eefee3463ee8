"""Support for wide guides: views, 360-degree rings, and consistent depth."""
