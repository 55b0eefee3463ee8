"""People in pictures: skeletons, boxes, and their file format."""
