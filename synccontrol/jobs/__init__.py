"""From a request in words to pictures on disk."""
