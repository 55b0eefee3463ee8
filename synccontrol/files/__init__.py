"""Pictures in and out: reading, fitting, metadata."""
