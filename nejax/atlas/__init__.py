"""The finished atlas: written once, opened, queried, summarised and plotted."""
