"""Images, maps, manifests and metadata in and out."""
