"""Read and write images, control maps, manifests and metadata."""
