"""The explorer: an atlas in a browser, from a server or as a static site."""
