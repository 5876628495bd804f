"""Array functions of the decode loop that have a GPU kernel."""
