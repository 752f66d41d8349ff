"""Whether what a study says of longer training comes true."""
