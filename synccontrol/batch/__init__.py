"""Plan, run and record the jobs that generate image files."""
