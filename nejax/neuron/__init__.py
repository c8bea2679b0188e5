"""The numbers of one neuron: pure functions of arrays, written for one neuron and made a layer by `vmap`."""
