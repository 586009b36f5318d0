"""What stands behind a comparison's figures: where models fail, what they cost, and what more data would bring."""
