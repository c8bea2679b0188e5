"""A model, arrays and a mesh in, arrays out; a run directory is not known here."""
