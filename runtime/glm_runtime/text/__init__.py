"""Text to tokens and back: tokenizer, chat template, thinking, tool calls, stop strings."""
