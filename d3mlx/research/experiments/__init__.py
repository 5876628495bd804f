"""What the package claims about decoders and students, re-measured by one command each; the README's tables come from
here."""
