"""Wordings of facts about two owners and about money, as in `wordings`."""

from __future__ import annotations

from d3mlx.data.stories.wordings import bank

OWNERS = {
    "second": bank("""
        {m} [have/m] {a t}.
        {m} [have/m] {a t}.
        {m} [have/m] {a}.
        {m} [own/m] {a t}.
        {m} [have/m] {a t} too.
        {m} also [have/m] {a t}.
        {m's} {p1} [have/x] {a t} in it.
        ---
        {m} [possess/m] {a t}.
        {m} [keep/m] {a t} at home.
        """),
    "more than": bank("""
        {m} [have/m] {a more t} than {n.o}.
        {m} [have/m] {a more} than {n.o}.
        {m} [have/m] {a more t}.
        {m} [own/m] {a more t} than {n.o}.
        {m} [have/m] {a extra t} compared with {n.o}.
        {n} [have] {a fewer t} than {m}.
        {n} [have] {a fewer} than {m}.
        ---
        {m's} number of {t} [be/x] larger by {a}.
        Compared with {n.o}, {m} [have/m] {a more}.
        """),
    "fewer than": bank("""
        {m} [have/m] {a fewer t} than {n.o}.
        {m} [have/m] {a fewer} than {n.o}.
        {m} [have/m] {a fewer t}.
        {m} [have/m] {a less} than {n.o}.
        {m} [own/m] {a fewer t} than {n.o}.
        {n} [have] {a more t} than {m}.
        {n} [have] {a more} than {m}.
        ---
        {m's} number of {t} [be/x] smaller by {a}.
        Compared with {n.o}, {m} [have/m] {a fewer}.
        """),
    "times": bank("""
        {m} [have/m] {a times} as many.
        {m} [have/m] {a times} as many {t}.
        {m} [have/m] {a times} as many as {n.o}.
        {m} [have/m] {a times} as many {t} as {n.o}.
        {m} [own/m] {a times} as many.
        {m} [own/m] {a times} as many {t} as {n.o}.
        But {m} [have/m] {a times} as many.
        ---
        {m's} number of {t} [be/x] {a times} as large.
        Compared with {n.o}, {m} [have/m] {a times} as many.
        """),
    "half of": bank("""
        {m} [have/m] half as many.
        {m} [have/m] half as many {t}.
        {m} [have/m] half as many as {n.o}.
        {m} [have/m] half as many {t} as {n.o}.
        {m} only [have/m] half as many.
        {m} [own/m] half as many {t} as {n.o}.
        ---
        {m's} number of {t} [be/x] half as large.
        Compared with {n.o}, {m} [have/m] half as many.
        """),
    "second groups": bank("""
        {m} [have/m] {a p} with {b t} in each.
        {m} [have/m] {a p} of {b t} each.
        {m} [have/m] {a p} with {b t} each.
        {m} [buy/m] {a p} with {b t} in each.
        {m} [have/m] {b t} in each of {a p}.
        {m} also [have/m] {a p}. Each {p1} [have/x] {b t}.
        ---
        {m} [own/m] {a p} with {b t} inside each one.
        {m} [fill/m] {a p} with {b t} each.
        """),
    "second daily": bank("""
        {m} [DAILY/m] {a t} a day for {b days}.
        {m} [DAILY/m] {a t} every day for {b days}.
        {m} [DAILY/m] {a} on each of {b days}.
        {m} [DAILY/m] {a t} on each of {b days}.
        For {b days}, {m} [DAILY/m] {a t} a day.
        {m} also [DAILY/m] {a t} per day for {b days}.
        ---
        Over {b days}, {m} [DAILY/m] {a t} each day.
        {m} [DAILY/m] {a t} daily for {b days}.
        """),
    "share both": bank("""
        They share all of them equally among {a f}.
        They divide all the {t} equally among {a f}.
        They share all their {t} equally among {a f}.
        They give all of them in equal parts to {a f}.
        Together they share all the {t} equally among {a f}.
        {a f} share all the {t} equally.
        They put all the {t} together and share them equally among {a f}.
        ---
        They split the whole lot evenly among {a f}.
        All their {t} go in equal shares to {a f}.
        """),
    "pack both": bank("""
        They put all of them equally into {a q}.
        They put all the {t} equally into {a q}.
        They pack all their {t} equally into {a q}.
        Together they put all the {t} into {a q}, with the same number in each.
        They divide all of them equally into {a q}.
        They sort all their {t} into {a equal q}.
        ---
        They place the whole lot in {a q} so that all have the same number.
        All their {t} go into {a q} of equal size.
        """),
}

MONEY = {
    "money": bank("""
        [have] {a u}
        [have] {a u}
        [have] {a u} in {n's} pocket
        [start] with {a u}
        [own] {a u}
        [take] {a u} to the {shop}
        [bring] {a u}
        [have] {a u} to spend
        [get] {a u} for a birthday
        {n's} purse [have/x] {a u} in it.
        There [are/t] {a u} in {n's} wallet.
        ---
        [carry] {a u}
        {n} [go] to the {shop} with {a u}.
        """),
    "earn": bank("""
        [earn] {a u} an hour for {b hours}
        [earn] {a u} per hour and [work] for {b hours}
        [earn] {a u} a day for {b days}
        [save] {a u} a week for {b weeks}
        [save] {a u} every week for {b weeks}
        [save] {a u} each day for {b days}
        {n} [earn] {a u} per hour. {n} [work] for {b hours}.
        {n} [work] for {b hours} and [earn] {a u} each hour.
        For {b weeks}, {n} [save] {a u} a week.
        ---
        [make] {a u} in each of {b hours}
        {n} [put] {a u} aside every day for {b days}.
        """),
    "receive money": bank("""
        [get] {a more u}
        [get] {a more} from {m}
        [get] {a u} from {m}
        [earn] {a more u}
        [earn] {a more}
        [receive] {a u} as a gift
        [find] {a u} in the {outdoors}
        {m} [give/m] {n.o} {a u}.
        {m} [give/m] {n.o} {a more u}.
        Later {n} [earn] {a u}.
        ---
        [win] {a u}
        {m} [pay/m] {n.o} {a u} for some help.
        """),
    "spend": bank("""
        [spend] {a u}
        [spend] {a}
        [spend] {a u} on food
        [spend] {a u} on a {s1}
        [buy] a {s1} for {a u}
        [pay] {a u} for a {s1}
        [buy] a {s1} that costs {a u}
        [give] {a u} to {m}
        [give] {m} {a u}
        [lose] {a u}
        At the {shop}, {n} [spend] {a u}.
        A {s1} [cost/x] {a u}, and {n} [buy] it.
        ---
        [hand] over {a u} for a {s1}
        {m} [borrow/m] {a u} from {n.o}.
        [use] {a u} for a {s1}
        """),
    "buy each": bank("""
        [buy] {a t} for {b u} each
        [buy] {a t} at {b u} each
        [buy] {a t} that cost {b u} each
        [pay] {b u} for each of {a t}
        {n} [buy] {a t}. Each {t1} [cost/x] {b u}.
        {n} [buy] {a t}. One {t1} [cost/x] {b u}.
        {n} [buy] {a t}, and each of them [cost/x] {b u}.
        One {t1} [cost/x] {b u}. {n} [buy] {a}.
        ---
        [order] {a t} with a price of {b u} each
        {n} [get] {a t} at the {shop} for {b u} apiece.
        """),
    "sell each": bank("""
        [sell] {a t} for {b u} each
        [sell] {a t} at {b u} each
        {n} [sell] {a t} and [get] {b u} for each.
        {n} [sell] {a t}. Each {t1} [bring/x] {b u}.
        {n} [sell] {a t} to {m} for {b u} each.
        {m} [buy/m] {a t} from {n.o} for {b u} each.
        [get] {b u} for each of {a t}
        ---
        [earn] {b u} with each of {a t}
        {m} [pay/m] {n.o} {b u} each for {a t}.
        """),
    "afford": bank("""
        One {t1} [cost/x] {a u}.
        A {t1} [cost/x] {a u}.
        Each {t1} [cost/x] {a u}.
        The price of a {t1} [be/x] {a u}.
        {n} [want] to buy {t} for {a u} each.
        {n} [want] to buy {t}. Each {t1} [cost/x] {a u}.
        {n} [want] {t} that cost {a u} each.
        [spend] all of it on {t} at {a u} each
        ---
        {n} [like] {t}, which cost {a u} apiece.
        The {shop} [have/x] {t} for {a u} each.
        """),
    "price": bank("""
        [want] a {z1} for {a u}
        [want] to buy a {z1} for {a u}
        [need] {a u} for a {z1}
        [save] for a {z1} that costs {a u}
        A {z1} [cost/x] {a u}.
        {n} [want] a {z1} that costs {a u}.
        The price of a {z1} [be/x] {a u}.
        {n} [want] to buy a {z1}. It [cost/x] {a u}.
        ---
        [wish] for a {z1} at a price of {a u}
        {n's} dream [be/x] a {z1} for {a u}.
        """),
    "more kinds": bank("""
        [buy] {a s} for {b u} each
        {n} also [buy] {a s} for {b u} each.
        {n} [buy] {a s} too, for {b u} each.
        [buy] {a s} at {b u} each
        {n} also [buy] {a s} that cost {b u} each.
        Then {n} [buy] {a s} for {b u} each.
        ---
        [add] {a s} with a price of {b u} each
        {n} also [get] {a s} for {b u} apiece.
        """),
}
