"""What is right, and how near is near enough; no framework is imported here."""
