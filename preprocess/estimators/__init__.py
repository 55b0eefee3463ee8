"""What finds depth and people in pictures; each estimator is imported when it is used."""
