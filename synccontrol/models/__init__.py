"""Named models: how they are found and loaded; the bundled one."""
