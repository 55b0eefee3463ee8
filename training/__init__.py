"""The renderer and the recipe that made the bundled model `tiny`."""
