"""Training in a process of its own: any command line, in a group that ends with us, heard through lines of JSON."""
