"""What stands behind a comparison's figures: where models fail, what they cost, what more data would bring."""
