"""Control types. This folder is the registry: each module defines the control type of its name."""
