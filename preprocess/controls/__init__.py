"""Control types. This directory is the registry: every module in it is the control type of its name."""
