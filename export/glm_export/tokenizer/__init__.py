"""Conversion of a checkpoint's tokenizer to tokenizer.json, token ids and chat_table.json."""
