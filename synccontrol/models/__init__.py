"""Named models: registry, presets and loading; includes the bundled model."""
