"""Several processes of one server at one port: how many, what each is given, and who looks after them."""
