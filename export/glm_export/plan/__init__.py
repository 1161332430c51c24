"""What is to be made, decided before any slow work: options, schemes, sizes."""
