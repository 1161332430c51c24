"""The files of a folder beside the graph: configuration, manifest, model card, test vectors."""
