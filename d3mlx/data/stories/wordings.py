"""Wordings of the facts and events of a story.

A line that begins with a verb in brackets continues a sentence about the main person: "[eat] {a}" is "Tom eats 2" or
"... and eats 2". Other lines are whole sentences. `[verb/m]` agrees with the second person, `[verb/t]` with a plural
and `[verb/x]` with a single thing.

Placeholders: n, m, k: people (n's: "Tom's", n.o: "him"). a to d: numbers. t: things, t1: one thing. {a t}: "5 apples".
p and q: containers, p1: one container. f: people who get a share. u: a unit. v: a vehicle or a room. w: a material.
i and j: its container and containers. r and h: the things, as "them" or "the rest". s and z: other things.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bank:
    """Wordings of one kind of fact or question. Training never uses the unknown ones."""

    known: tuple[str, ...]
    unknown: tuple[str, ...]


def bank(text: str) -> Bank:
    """Return the wordings in the lines of a text. The unknown ones follow a line of three dashes."""
    known, unknown = (tuple(line.strip() for line in part.strip().splitlines()) for part in text.split("---"))
    return Bank(known, unknown)


OPENINGS = {
    "own": bank("""
        [have] {a t}
        [have] {a t}
        [have] {a t}
        [own] {a t}
        [start] with {a t}
        [start] the day with {a t}
        [have] {a t} at home
        [keep] {a t} in a {p1}
        [have] a {p1} with {a t}
        [bring] {a t}
        [get] {a t}
        There [are/t] {a t} in {n's} {p1}.
        {n's} {p1} [have/x] {a t} in it.
        At first {n} [have] {a t}.
        In the morning {n} [have] {a t}.
        ---
        [possess] {a t}
        [carry] {a t} in a {p1}
        To begin with, {n} [have] {a t}.
        """),
    "groups": bank("""
        [have] {a p} with {b t} in each
        [have] {a p} of {b t} each
        [have] {a p} with {b t} each
        [have] {b t} in each of {a p}
        [fill] {a p} with {b t} each
        [buy] {a p} with {b t} in each
        [get] {a p} of {b t} each
        {n} [have] {a p}. Each {p1} [have/x] {b t}.
        {n} [have] {a p}. There [are/t] {b t} in each {p1}.
        {n} [have] {a p}, and every {p1} [have/x] {b t} in it.
        There [are/t] {b t} in each of {n's} {a p}.
        {n} [put] {b t} into each of {a p}.
        ---
        [own] {a p} with {b t} inside each one
        {n} [have] {a p} and each of them [contain/x] {b t}.
        [possess] {a p}, each with {b t}
        """),
    "two groups": bank("""
        [have] {a p} with {b t} in each and {c p} with {d t} in each
        [have] {a p} of {b t} each and {c p} of {d} each
        [have] {a p} with {b t} in each and {c p} with {d}
        [buy] {a p} with {b t} in each and {c p} with {d t} in each
        {n} [have] {a p} with {b t} each. {n} also [have] {c p} with {d} each.
        {n} [have] {a big p} with {b t} in each and {c small p} with {d} in each.
        {n} [fill] {a p} with {b t} each and {c more p} with {d} each.
        There [are/t] {b t} in each of {a p} and {d t} in each of {c other p}.
        ---
        [get] {a p} containing {b t} each and {c p} containing {d} each
        {n} [own] {a large p} with {b t} in each, and also {c little p} with {d} in each.
        """),
    "daily": bank("""
        [DAILY] {a t} a day for {b days}
        [DAILY] {a t} every day for {b days}
        [DAILY] {a t} each day for {b days}
        [DAILY] {a t} on each of {b days}
        [DAILY] {a t} per day for {b days}
        For {b days}, {n} [DAILY] {a t} a day.
        Every day {n} [DAILY] {a t}. {n} [do] this for {b days}.
        On each of {b days}, {n} [DAILY] {a t}.
        {n} [DAILY] {a t} every morning for {b days}.
        ---
        [DAILY] {a t} daily for {b days}
        Over {b days}, {n} [DAILY] {a t} each day.
        """),
    "two days": bank("""
        On Monday {n} [FIND] {a t}, and on Tuesday {b more}.
        On Monday {n} [FIND] {a t}. On Tuesday {n} [FIND] {b more}.
        On Saturday {n} [FIND] {a t}, on Sunday {b more}.
        {n} [FIND] {a t} on Friday and {b} on Saturday.
        {n} [FIND] {a t} in the morning and {b} in the afternoon.
        {n} [FIND] {a t} on the first day and {b} on the second day.
        In the morning {n} [FIND] {a t}. In the evening {n} [FIND] {b more}.
        [FIND] {a t} on Wednesday and {b more} on Thursday
        ---
        [FIND] {a t} before lunch and {b} after lunch
        [FIND] {a t} last week and {b more} this week
        """),
}

GAINS = {
    "buy": bank("""
        [buy] {a more}
        [buy] {a more t}
        [buy] another {a}
        [buy] {a extra t}
        [buy] {a more} at the {shop}
        [get] {a more} at the {shop}
        [order] {a more}
        [pay] for {a more}
        At the {shop}, {n} [buy] {a more t}.
        {n} [go] to the {shop} and [buy] {a more}.
        ---
        [purchase] {a more}
        [pick] up {a more} at the {shop}
        """),
    "find": bank("""
        [find] {a more}
        [find] {a more t}
        [find] another {a}
        [find] {a more} in the {outdoors}
        [find] {a more t} near the {outdoors}
        [collect] {a more}
        [gather] {a more}
        In the {outdoors}, {n} [find] {a more}.
        {n} [go] to the {outdoors} and [find] {a more t}.
        ---
        [discover] {a more}
        [come] across {a more t} in the {outdoors}
        """),
    "get": bank("""
        [get] {a more}
        [get] {a more} from {m}
        [get] {a t} from {m}
        [receive] {a more}
        [receive] {a t} from {m}
        [be] given {a more}
        {m} [give/m] {n.o} {a more}.
        {m} [give/m] {n.o} {a more t}.
        {m} [bring/m] {n.o} {a t}.
        A friend [give/m] {n.o} another {a}.
        ---
        [take] {a more} from {m}
        {m} [send/m] {n.o} {a more t}.
        """),
    "make": bank("""
        [DAILY] {a more}
        [DAILY] {a more t}
        [DAILY] another {a}
        [make] {a more}
        [make] {a extra t}
        [finish] {a more t}
        In the evening {n} [DAILY] {a more}.
        {n} [go] home and [DAILY] {a more}.
        ---
        [produce] {a more}
        [add] {a more t}
        """),
    "pick": bank("""
        [pick] {a more}
        [pick] {a more t}
        [pick] another {a}
        [pick] {a more} in the {outdoors}
        [gather] {a more t}
        [harvest] {a more}
        In the {outdoors}, {n} [pick] {a more}.
        {n} [go] outside and [pick] {a more}.
        ---
        [cut] {a more t}
        [bring] in {a more} from the {outdoors}
        """),
    "gain groups": bank("""
        [buy] {a p} with {b t} in each
        [buy] {a p} of {b t} each
        [buy] {a p} with {b} in each
        [get] {a p} with {b more t} in each
        [get] {a p} of {b} each
        [receive] {a p} with {b t} each
        {n} [buy] {a p}. Each {p1} [have/x] {b t}.
        {m} [bring/m] {n.o} {a p} with {b t} in each.
        ---
        [order] {a p} containing {b t} each
        {m} [give/m] {n.o} {a p}, and there [are/t] {b t} in each.
        """),
}

LOSSES = {
    "eat": bank("""
        [eat] {a}
        [eat] {a}
        [eat] {a t}
        [eat] {a of them}
        [eat] {a of the t}
        [eat] {a} for lunch
        [eat] {a} for breakfast
        [eat] {a of them} on the way home
        {m} [eat/m] {a of them}.
        In the evening {n} [eat] {a of them}.
        ---
        [snack] on {a of them}
        [enjoy] {a} for dinner
        """),
    "give": bank("""
        [give] {a} to {m}
        [give] {a t} to {m}
        [give] {m} {a}
        [give] {m} {a of them}
        [give] {a} away
        [give] away {a}
        [give] away {a t}
        [hand] {a of them} to {m}
        [send] {a} to {m}
        [give] {a of the t} to a friend
        {m} [get/m] {a of them} from {n.o}.
        {m} [take/m] {a of them}.
        ---
        [pass] {a} on to {m}
        [donate] {a t}
        {m} [want/m] some and [get/m] {a of them}.
        """),
    "sell": bank("""
        [sell] {a}
        [sell] {a}
        [sell] {a t}
        [sell] {a of them}
        [sell] {a of the t}
        [sell] {a} to {m}
        [sell] {a} at the {shop}
        {m} [buy/m] {a of them} from {n.o}.
        At the {shop}, {n} [sell] {a of them}.
        ---
        [trade] away {a}
        {n} [find] a buyer for {a of the t}.
        """),
    "lose": bank("""
        [lose] {a}
        [lose] {a}
        [lose] {a t}
        [lose] {a of them}
        [lose] {a of the t}
        [lose] {a} in the {outdoors}
        [lose] {a of them} on the way
        In the {outdoors}, {n} [lose] {a of them}.
        Then {n} [lose] {a t}.
        ---
        [misplace] {a}
        [drop] and [lose] {a of them}
        """),
    "break": bank("""
        [break] {a}
        [break] {a t}
        [break] {a of them}
        [break] {a of the t}
        [drop] and [break] {a}
        {m} [break/m] {a of them}.
        {m} accidentally [break/m] {a t}.
        By accident {n} [break] {a of them}.
        ---
        [smash] {a}
        [knock] over {a of them}, and they [break/t]
        """),
    "use": bank("""
        [use] {a}
        [use] {a t}
        [use] {a of them}
        [use] {a of the t}
        [use] up {a}
        [use] {a} at work
        For a project {n} [use] {a of them}.
        {m} [borrow/m] and [use/m] up {a of them}.
        ---
        [need] {a of them} for a project and [use] them up
        [spend] the morning at work and [use] {a}
        """),
    "half": bank("""
        [LOSE] half of {h}
        [LOSE] half of {h}
        [give] half of {h} to {m}
        [give] half of {h} away
        [give] away half of {h}
        [give] {m} half of {h}
        {m} [take/m] half of {h}.
        {m} [get/m] half of {h} from {n.o}.
        Then {n} [LOSE] half of {h}.
        ---
        [hand] half of {h} to {m}
        {m} [want/m] some and [get/m] half of {h}.
        """),
    "lose groups": bank("""
        [give] {b t} to each of {a f}
        [give] {b} to each of {a f}
        [give] {a f} {b t} each
        [give] {a f} {b} each
        [give] each of {a f} {b t}
        [hand] {b t} to each of {a f}
        [let] {a f} take {b} each
        {a f} [come/t] by, and each [get/x] {b t} from {n.o}.
        {a f} [get/t] {b t} each from {n.o}.
        ---
        [pass] {b} on to each of {a f}
        {n} [have] visitors: {a f} who [take/t] {b t} each.
        """),
}

CLOSINGS = {
    "share": bank("""
        [share] {r} equally among {a f}
        [share] {r} equally with {a f}, but [keep] none
        [divide] {r} equally among {a f}
        [give] {r} in equal parts to {a f}
        [split] {r} evenly among {a f}
        {n} [share] {r} among {a f}, and each [get/x] the same number.
        {a f} [share/t] {r} equally.
        {a f} [divide/t] {r} evenly.
        ---
        [distribute] {r} fairly among {a f}
        {a f} [get/t] equal shares of {r}.
        """),
    "pack": bank("""
        [put] {r} equally into {a q}
        [put] {r} into {a q} with the same number in each
        [pack] {r} equally into {a q}
        [divide] {r} equally into {a q}
        [spread] {r} evenly over {a q}
        [sort] {r} into {a equal q}
        {n} [have] {a q} and [put] {r} into them, with the same number in each {q1}.
        {a q} [contain/t] {r}, with the same number in each.
        ---
        [place] {r} in {a q} so that all have the same number
        [arrange] {r} in {a q} of equal size
        """),
    "fill": bank("""
        [put] {a} into each {q1}
        [put] {r} into {q} with {a} in each
        [pack] {r} into {q} of {a}
        [pack] {r} into {q} with {a} in each {q1}
        [sort] {r} into {q} with {a} in each
        {n} [have] some {q}, and {a} [fit/t] into each {q1}.
        One {q1} [have/x] room for {a}.
        Each {q1} [take/x] {a}.
        ---
        [stack] {r} in {q} that [contain/t] {a} each
        {n} [use] {q} with room for {a} each.
        """),
    "need": bank("""
        [need] {a t}
        [want] {a t}
        [need] {a} in total
        [want] to have {a t}
        [need] {a t} for a party
        [want] {a} in all
        {n} [need] {a t} in total.
        But {n} [need] {a t}.
        ---
        [require] {a t} altogether
        {n's} goal [be/x] {a t}.
        """),
}
