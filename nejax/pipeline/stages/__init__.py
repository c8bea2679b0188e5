"""One stage after another, each from stores to a store, and their order."""
