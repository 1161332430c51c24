"""The other files of a folder: configuration, manifest, model card and test vectors."""
