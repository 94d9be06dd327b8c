"""A laptop-sized GPT that you can see: digits become sentences, and sentences digits."""
