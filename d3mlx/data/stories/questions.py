"""Questions of the stories, ways to ask them, and distracting sentences.

A question is written as a clause. `<n have>` is "does Tom have" in a direct question and "Tom has" in a clause.
"""

from __future__ import annotations

from d3mlx.data.stories.wordings import bank

QUESTIONS = {
    "now": bank("""
        how many {t} <n have> now
        how many {t} <n have> now
        how many {t} <n have>
        how many {t} <n have> in the end
        how many {t} <n have> after that
        how many {t} <n have> in total now
        how many {t} <n have> altogether
        how many {t} [are/t] there now
        how many {t} does that make
        how many <n have> now
        how many {t} <n own> now
        ---
        how many {t} <n end> up with
        what number of {t} <n have> now
        """),
    "left": bank("""
        how many {t} [are/t] left
        how many {t} [are/t] left
        how many {t} <n have> left
        how many {t} <n have> left
        how many {t} <n still have>
        how many {t} <n have> now
        how many {t} remain
        how many [are/t] left
        how many <n have> left
        how many {t} <n have> in the end
        how many {t} <n keep>
        ---
        how many {t} [are/t] still there
        how many {t} <n have> after all this
        what number of {t} [are/t] left
        """),
    "all": bank("""
        how many {t} [are/t] there
        how many {t} <n have>
        how many {t} [are/t] there in total
        how many {t} <n have> in total
        how many {t} [are/t] there altogether
        how many {t} <n have> altogether
        how many {t} is that in total
        how many {t} is that
        how many {t} does that make
        ---
        how many {t} <n have> in all
        what is the total number of {t}
        """),
    "share": bank("""
        how many {t} <f1 get>
        how many {t} <f1 get>
        how many <f1 get>
        how many {t} <f1 receive>
        how many {t} <f1 have> then
        how many {t} [are/t] there for each {f1}
        how many {t} does one {f1} get
        how many {t} go to each {f1}
        ---
        how many {t} <f1 end> up with
        what is the share of each {f1}
        """),
    "pack": bank("""
        how many {t} [are/t] in each {q1}
        how many {t} [are/t] in each {q1}
        how many {t} are there in each {q1}
        how many {t} are in one {q1}
        how many {t} go into each {q1}
        how many {t} <q1 have> in it
        how many {t} <q1 get>
        how many are in each {q1}
        ---
        how many {t} <q1 contain>
        what number of {t} [be/x] in each {q1}
        """),
    "fill": bank("""
        how many {q} <n need>
        how many {q} <n need> for all the {t}
        how many {q} <n use>
        how many {q} <n fill>
        how many {q} [are/t] full
        how many {q} are needed
        how many {q} are there in the end
        how many full {q} are there
        ---
        how many {q} does it take
        what number of {q} is needed
        """),
    "need": bank("""
        how many more {t} <n need>
        how many more {t} <n need>
        how many more <n need>
        how many {t} <n still need>
        how many more {t} [are/t] needed
        how many {t} are missing
        how many more {t} must {n} get
        how many more <n need> to get
        ---
        how many {t} <n lack>
        how many extra {t} <n require>
        """),
    "second": bank("""
        how many {t} <m have>
        how many {t} <m have>
        how many <m have>
        how many {t} <m own>
        how many {t} belong to {m}
        how many {t} <m have> at home
        how many {t} are there for {m}
        ---
        how many {t} are in the hands of {m}
        what number of {t} <m have>
        """),
    "both": bank("""
        how many {t} do they have together
        how many {t} do they have in total
        how many {t} do they have altogether
        how many {t} do {n} and {m} have together
        how many {t} do {n} and {m} have in total
        how many do they have together
        how many {t} are there in total
        how many {t} are there altogether
        ---
        how many {t} do both have in all
        what is their total number of {t}
        """),
    "difference": bank("""
        how many more {t} <n have> than {m}
        how many more {t} <n have> than {m}
        how many more <n have> than {m}
        how many fewer {t} <m have> than {n}
        how many fewer {t} <m have>
        how many more {t} <n own> than {m}
        how many {t} more <n have> than {m}
        how many {t} fewer <m have> than {n}
        ---
        by how many {t} <n have> more than {m}
        what is the difference between their numbers of {t}
        """),
    "money": bank("""
        how many {u} <n have> left
        how many {u} <n have> now
        how many {u} [are/t] left
        how many {u} <n still have>
        how many {u} remain
        how many {u} <n have> in the end
        how much money <n have> left
        how much money <n have> now
        how much money is left
        ---
        how many {u} <n end> up with
        what amount of money <n have> in the end
        """),
    "change": bank("""
        how many {u} <n have> left
        how many {u} [are/t] left
        how much money <n have> left
        how many {u} <n get> back
        how much change <n get>
        how much money is left
        how many {u} of change <n get>
        ---
        how many {u} are still in the wallet
        what is the change
        """),
    "cost": bank("""
        how many {u} <n pay>
        how many {u} <n pay> in total
        how much <n pay>
        how much <n pay> in total
        how many {u} <n spend>
        how many {u} does that cost
        how much does it cost in total
        how much do they cost together
        ---
        how much money <n need> for that
        what is the total price
        """),
    "earned": bank("""
        how many {u} is that
        how many {u} is that in total
        how much money is that
        how many {u} <n have>
        how much money <n have> in total
        how many {u} <n have> altogether
        how many {u} does that make
        ---
        how many {u} <n collect>
        what is the total amount of money
        """),
    "afford": bank("""
        how many {t} can {n} buy
        how many {t} can {n} buy with that
        how many can {n} buy
        how many {t} <n get>
        how many {t} <n get> for it
        how many {t} <n buy> if all of it is spent
        how many {t} can {n} afford
        ---
        how many {t} is that enough for
        what number of {t} can {n} pay for
        """),
    "price": bank("""
        how many more {u} <n need>
        how many {u} <n still need>
        how many {u} are missing
        how much more money <n need>
        how much more <n need>
        how many more {u} must {n} save
        how many {u} <n need> to add
        ---
        how many {u} <n lack>
        how much money is missing
        """),
    "people": bank("""
        how many people are there now
        how many people are there now
        how many people are there in the end
        how many people are {there} now
        how many people are {there}
        how many people remain
        how many people are now {there}
        how many are there now
        ---
        how many people does that leave
        what is the number of people {there} now
        """),
    "rows": bank("""
        how many people are there
        how many people are there in total
        how many people are {there}
        how many people is that
        how many people are there altogether
        how many people is that in total
        ---
        how many people are there in all
        what is the number of people {there}
        """),
    "teams": bank("""
        how many people are in each of them
        how many people are in each
        how many people are there in each
        how many are in each
        how many people does each have
        how many people does each of them have
        ---
        how many people belong to each
        what is the size of each
        """),
    "amount": bank("""
        how many {u} of {w} <n have> now
        how many {u} <n have> now
        how many {u} <n have>
        how many {u} of {w} <n have>
        how many {u} of {w} [are/t] there now
        how many {u} of {w} is that
        how much {w} <n have> now
        ---
        how many {u} of {w} <n end> up with
        what amount of {w} <n have> in the end
        """),
    "remain": bank("""
        how many {u} [are/t] left
        how many {u} of {w} [are/t] left
        how many {u} <n have> left
        how many {u} of {w} <n have> left
        how many {u} remain
        how much {w} is left
        how many {u} <n have> now
        ---
        how many {u} of {w} [are/t] still there
        what amount of {w} is left
        """),
    "parts": bank("""
        how many {u} [are/t] in each part
        how many {u} are there in each part
        how many {u} of {w} [are/t] in each part
        how many {u} is one part
        how many {u} does each part have
        how big is each part in {u}
        ---
        how many {u} does one part contain
        what is the size of one part in {u}
        """),
    "way": bank("""
        how many {u} <n GO>
        how many {u} <n GO> in total
        how many {u} <n GO> altogether
        how many {u} is that
        how many {u} is that in total
        how many {u} does that make
        ---
        how many {u} <n GO> in all
        what is the total number of {u}
        """),
    "goal": bank("""
        how many {u} are left
        how many {u} remain
        how many more {u} must {n} [GO/0]
        how many {u} are missing
        how many {u} are still to go
        how many more {u} <n need> to [GO/0]
        ---
        how many {u} <n lack>
        what number of {u} remains
        """),
}

STYLES = bank("""
    direct
    if before
    if after
    find
    calculate
    so
    ---
    tell
    wonder
    work out
    """)
"""Ways to ask. The unknown ones are whole styles that training never uses."""

ASKED = {
    "find": "Find {clause}.",
    "calculate": "Calculate {clause}.",
    "so": "So {direct}?",
    "tell": "Can you tell me {clause}?",
    "wonder": "I wonder {clause}.",
    "work out": "Please work out {clause}.",
}

DISTRACTIONS = bank("""
    {k} [have/m] {e z}.
    {k} [own/m] {e z}.
    {k} [be/m] {e} years old.
    {n} [be] {e} years old.
    There [are/t] {e z} on the table.
    It [be/x] a sunny day.
    It [be/x] {weekday}.
    The weather [be/x] nice.
    {k} [like/m] {z}.
    {k} [sell/m] {z}.
    The {shop} has been open for {e} years.
    {k} [read/m] {e pages} of a book.
    {k} [live/m] {e} miles away.
    ---
    It [be/x] cold outside and it [be/x] {weekday}.
    {k} [see/m] {e z} in the {outdoors}.
    {k} [wait/m] for {e minutes}.
    """)
"""Sentences that change nothing. e: a number."""
