"""The fastest forms of loops for a backend, for nejax's own layer programs; public functions do not depend on them."""
