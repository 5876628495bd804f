"""How the models that ship, and those they are compared with, are made."""
