"""The format of an exported folder: its manifest, read strictly."""
