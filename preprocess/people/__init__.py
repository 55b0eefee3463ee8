"""People in images: skeletons, bounding boxes, and their file format."""
