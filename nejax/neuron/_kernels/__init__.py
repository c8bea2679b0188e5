"""Forms that a backend runs fastest, for nejax's own layer programs; nothing public rests on them."""
