"""tokenizer.json, token ids and the chat table, from whatever a checkpoint holds."""
