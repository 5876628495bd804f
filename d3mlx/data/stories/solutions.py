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
    "have": ("{n} [have] {=} {t}.", "That makes {=} {t}.", "That makes {=}."),
    "left": ("{n} [have] {=} {t} left.", "That leaves {=} {t}.", "That leaves {=}."),
    "groups": ("The {p} have {=} {t}.", "In the {p} are {=} {t}.", "The {p} have {=}."),
    "more groups": ("The other {p} have {=} {t}.", "In the others are {=} {t}.", "The others have {=}."),
    "daily": ("The days give {=} {t}.", "In total {=} {t}.", "The days give {=}."),
    "total": ("Together that is {=} {t}.", "In total {=} {t}.", "In total {=}."),
    "given": ("The {f} get {=} {t}.", "That takes {=} {t}.", "That takes {=}."),
    "half": ("Half is {=} {t}.", "That leaves {=} {t}.", "Half is {=}."),
    "share": ("Each {f1} gets {=} {t}.", "A share is {=} {t}.", "Each gets {=}."),
    "pack": ("Each {q1} has {=} {t}.", "In each are {=} {t}.", "Each has {=}."),
    "fill": ("{n} [need] {=} {q}.", "That fills {=} {q}.", "That fills {=}."),
    "need": ("{n} [need] {=} more {t}.", "Missing are {=} {t}.", "Missing are {=}."),
    "second": ("{m} has {=} {t}.", "So {m} has {=}.", "The other has {=}."),
    "difference": ("{n} [have] {=} more {t}.", "The difference is {=} {t}.", "The difference is {=}."),
    "cost": ("The {t} cost {=} {u}.", "That costs {=} {u}.", "That costs {=}."),
    "more cost": ("The {s} cost {=} {u}.", "The others cost {=} {u}.", "The others cost {=}."),
    "money": ("{n} [have] {=} {u}.", "That makes {=} {u}.", "That makes {=}."),
    "change": ("{n} [have] {=} {u} left.", "That leaves {=} {u}.", "That leaves {=}."),
    "earn": ("The work gives {=} {u}.", "In total {=} {u}.", "That gives {=}."),
    "sold": ("The {t} bring {=} {u}.", "That brings {=} {u}.", "That brings {=}."),
    "afford": ("{n} can buy {=} {t}.", "That buys {=} {t}.", "That buys {=}."),
    "price": ("{n} [need] {=} more {u}.", "Missing are {=} {u}.", "Missing are {=}."),
    "in": ("Now there are {=} people.", "That makes {=} people.", "That makes {=}."),
    "out": ("That leaves {=} people.", "Down to {=} people.", "That leaves {=}."),
    "rows": ("That is {=} people.", "In total {=} people.", "That is {=}."),
    "teams": ("Each has {=} people.", "In each are {=} people.", "Each has {=}."),
    "amount": ("{n} [have] {=} {u}.", "That makes {=} {u}.", "That makes {=}."),
    "amounts": ("The {j} have {=} {u}.", "In total {=} {u}.", "The {j} have {=}."),
    "remain": ("{n} [have] {=} {u} left.", "That leaves {=} {u}.", "That leaves {=}."),
    "parts": ("Each part has {=} {u}.", "One part is {=} {u}.", "Each has {=}."),
    "way": ("That is {=} {u}.", "In total {=} {u}.", "That is {=}."),
    "more way": ("Then come {=} {u}.", "After that {=} {u}.", "Then come {=}."),
    "way total": ("In total that is {=} {u}.", "In total {=} {u}.", "In total {=}."),
    "total cost": ("Together that is {=} {u}.", "In total {=} {u}.", "In total {=}."),
    "rest": ("There remain {=} {u}.", "Missing are {=} {u}.", "Missing are {=}."),
    "plain": ("{=}.", "That is {=}.", "The result is {=}."),
}
"""Three phrases per step: long, middle and short. Long solutions use the short ones, so that they fit the canvas."""

ANSWER = "The answer is {answer}."
