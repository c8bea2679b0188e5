"""The run directory: settings, stores, checkpoints, devices, processes, sources."""
