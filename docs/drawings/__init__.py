"""The pictures of README and site, drawn by the bundled model: `python -m docs.drawings`."""
