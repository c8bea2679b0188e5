"""What the scripts that build and compare atlases need beside nejax."""
