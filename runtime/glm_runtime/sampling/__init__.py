"""Logits to one token: settings, penalties, constraints, log-probabilities."""
