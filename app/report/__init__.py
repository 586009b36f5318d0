"""The comparison as one HTML file: what was found, drawn and in tables, that opens from disk without a network."""
