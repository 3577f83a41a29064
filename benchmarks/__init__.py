"""How fast a release is served here, what the machine would allow, and what others reach on the same work."""
