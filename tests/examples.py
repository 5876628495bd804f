"""The question that most tests ask the bundled model, and the answer to it."""

QUESTION = "Anna has 3 bags with 12 apples in each. How many apples are there?"
BEGINNING, EQUATION, ENDING = "The bags have", "3*12=36", " apples. The answer is 36."
ANSWER = f"{BEGINNING} {EQUATION}{ENDING}"

TOKENS = (26, 22)
"""Numbers of tokens of the question in the chat template, and of the answer with its end."""
