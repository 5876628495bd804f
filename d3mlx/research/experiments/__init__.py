"""What the package claims about decoders and students, re-measured by one command each. The tables in
docs/results come from here."""
