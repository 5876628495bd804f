"""Questions without a story, and the phrases of solutions. `{=}` is an equation."""

from __future__ import annotations

from d3mlx.data.stories.wordings import bank

PLAIN = {
    "+": bank("""
        what is {a} plus {b}
        what is {a}+{b}
        what is {a} + {b}
        how much is {a} plus {b}
        how much is {a} + {b}
        calculate {a} + {b}.
        {a}+{b}=?
        {a} + {b} = ?
        add {a} and {b}.
        what is the sum of {a} and {b}
        ---
        what do you get if you add {b} to {a}
        compute {a} plus {b}.
        """),
    "-": bank("""
        what is {a} minus {b}
        what is {a}-{b}
        what is {a} - {b}
        how much is {a} minus {b}
        how much is {a} - {b}
        calculate {a} - {b}.
        {a}-{b}=?
        {a} - {b} = ?
        subtract {b} from {a}.
        what is the difference between {a} and {b}
        ---
        what do you get if you take {b} from {a}
        compute {a} minus {b}.
        """),
    "*": bank("""
        what is {a} times {b}
        what is {a}*{b}
        what is {a} * {b}
        how much is {a} times {b}
        how much is {a} x {b}
        calculate {a} * {b}.
        {a}*{b}=?
        {a} x {b} = ?
        multiply {a} by {b}.
        what is the product of {a} and {b}
        ---
        what do you get if you multiply {a} and {b}
        compute {a} times {b}.
        """),
    "/": bank("""
        what is {a} divided by {b}
        what is {a}/{b}
        what is {a} / {b}
        how much is {a} divided by {b}
        how much is {a} / {b}
        calculate {a} / {b}.
        {a}/{b}=?
        {a} / {b} = ?
        divide {a} by {b}.
        ---
        what do you get if you divide {a} by {b}
        compute {a} divided by {b}.
        """),
}

PHRASES = {
    "have": ("That makes {=}", "{t}"),
    "left": ("That leaves {=}", "{t}"),
    "groups": ("The {p} have {=}", "{t}"),
    "more groups": ("The others have {=}", "{t}"),
    "daily": ("In total {=}", "{t}"),
    "total": ("In total {=}", "{t}"),
    "given": ("That takes {=}", "{t}"),
    "half": ("That leaves {=}", "{t}"),
    "share": ("Each gets {=}", "{t}"),
    "pack": ("Each has {=}", "{t}"),
    "fill": ("That fills {=}", "{q}"),
    "need": ("Missing are {=}", "{t}"),
    "second": ("So {m} has {=}", "{t}"),
    "difference": ("The difference is {=}", "{t}"),
    "cost": ("That costs {=}", "{u}"),
    "more cost": ("The others cost {=}", "{u}"),
    "money": ("That makes {=}", "{u}"),
    "change": ("That leaves {=}", "{u}"),
    "earn": ("That gives {=}", "{u}"),
    "sold": ("That brings {=}", "{u}"),
    "afford": ("That buys {=}", "{t}"),
    "price": ("Missing are {=}", "{u}"),
    "in": ("That makes {=}", "people"),
    "out": ("That leaves {=}", "people"),
    "rows": ("That is {=}", "people"),
    "teams": ("Each has {=}", "people"),
    "amount": ("That makes {=}", "{u}"),
    "amounts": ("The {j} have {=}", "{u}"),
    "remain": ("That leaves {=}", "{u}"),
    "parts": ("Each has {=}", "{u}"),
    "way": ("That is {=}", "{u}"),
    "more way": ("Then come {=}", "{u}"),
    "way total": ("In total {=}", "{u}"),
    "total cost": ("In total {=}", "{u}"),
    "rest": ("Missing are {=}", "{u}"),
    "plain": ("That is {=}", ""),
}
"""The sentence of each step, and the noun that the last step adds.

A question has one solution. With several, decoders that do not go from left to right would mix them, because the
length of a phrase decides where all digits after it are.
"""

ANSWER = "The answer is {answer}."
