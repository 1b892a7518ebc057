"""What looks at an installation or a checkout and says whether it is sound."""
