"""From jobs to images on disk."""
