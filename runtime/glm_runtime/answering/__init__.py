"""Requests to tokens: the decode loop, sessions, batches, speculative decoding, beam search."""
