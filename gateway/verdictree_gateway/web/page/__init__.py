"""The page for people at `/`: a conversation, its verdict, and how the two policies' verdicts differ."""
