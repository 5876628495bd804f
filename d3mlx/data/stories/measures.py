"""Wordings of facts about people in a place, measures and distances, as in `wordings`."""

from __future__ import annotations

from d3mlx.data.stories.wordings import bank

PEOPLE = {
    "riders": bank("""
        A {v} [have/x] {a people} on board.
        A {v} [have/x] {a passengers}.
        There [are/t] {a people} on a {v}.
        There [are/t] {a passengers} on a {v}.
        {a people} [are/t] on a {v}.
        {a people} [ride/t] on a {v}.
        A {v} [start/x] with {a people}.
        A {v} [leave/x] with {a passengers}.
        A {v} [have/x] {a people}.
        ---
        A {v} [carry/x] {a people}.
        On a {v} there [are/t] {a travelers}.
        """),
    "get on": bank("""
        {a people} [get/t] on.
        {a more people} [get/t] on.
        Then {a people} [get/t] on.
        Then {a more} [get/t] on.
        At one stop {a people} [get/t] on.
        At the next stop {a more} [get/t] on.
        {a new passengers} [get/t] on.
        At a stop {a} [get/t] on.
        ---
        {a people} [board/t] it.
        At a station {a more people} [enter/t].
        """),
    "get off": bank("""
        {a people} [get/t] off.
        {a of them} [get/t] off.
        Then {a people} [get/t] off.
        Then {a} [get/t] off.
        At one stop {a people} [get/t] off.
        At the next stop {a} [get/t] off.
        {a passengers} [get/t] off.
        At a stop {a people} [leave/t].
        ---
        {a people} [step/t] off.
        At a station {a of them} [exit/t].
        """),
    "visitors": bank("""
        There [are/t] {a people} in the {v}.
        There [are/t] {a people} in a {v}.
        {a people} [are/t] in the {v}.
        {a people} [are/t] in a {v}.
        {a visitors} [are/t] in the {v}.
        The {v} [have/x] {a visitors}.
        A {v} [have/x] {a people} in it.
        {a children} [are/t] in the {v}.
        ---
        In the {v}, there [are/t] {a visitors}.
        {a people} [wait/t] in a {v}.
        """),
    "rows": bank("""
        In the {v} there [are/t] {a rows} with {b people} in each.
        The {v} [have/x] {a rows} with {b people} in each row.
        There [are/t] {a rows} of {b people} in the {v}.
        There [are/t] {a groups} of {b people} in the {v}.
        {a groups} of {b people} each [are/t] in the {v}.
        {a families} with {b people} each [are/t] in the {v}.
        {a groups} of {b people} [come/t] to the {v}.
        ---
        The {v} [have/x] {a tables} with {b people} at each table.
        {a teams} of {b people} each [meet/t] in the {v}.
        """),
    "come in": bank("""
        {a people} [come/t] in.
        {a more people} [come/t] in.
        {a more} [come/t].
        Then {a more people} [arrive/t].
        Then {a} [come/t] in.
        {a more} [arrive/t].
        Later {a more people} [join/t] them.
        After an hour {a more} [come/t].
        ---
        {a people} [walk/t] in.
        Soon {a more people} [enter/t].
        """),
    "leave": bank("""
        {a people} [leave/t].
        {a of them} [leave/t].
        Then {a people} [leave/t].
        Then {a} [leave/t].
        {a of them} [go/t] home.
        Later {a people} [leave/t].
        After an hour {a people} [leave/t].
        {a people} [go/t] away.
        ---
        {a people} [walk/t] out.
        Soon {a of them} [depart/t].
        """),
    "teams": bank("""
        They form {a equal groups}.
        They form {a teams} of the same size.
        They split evenly into {a groups}.
        They are divided equally into {a teams}.
        The people form {a equal groups}.
        They sit down in {a equal rows}.
        ---
        They make up {a groups} of equal size.
        They share {a tables} evenly.
        """),
}

MEASURES = {
    "amount": bank("""
        [have] {a u} of {w}
        [have] {i} with {a u} of {w}
        [have] {a u} of {w}
        [have] {a u} of {w} at home
        [buy] {a u} of {w}
        [start] with {a u} of {w}
        There [are/t] {a u} of {w} in {i}.
        [bring] {a u} of {w}
        ---
        [own] {a u} of {w}
        In {i}, there [are/t] {a u} of {w}.
        """),
    "amounts": bank("""
        [have] {a j} of {b u} of {w} each
        [have] {a j} with {b u} of {w} in each
        {n} [buy] {a j} of {w}. Each [have/x] {b u}.
        [buy] {a j} with {b u} of {w} each
        [have] {a j} of {w} with {b u} each
        [get] {a j} with {b u} of {w} in each
        ---
        [own] {a j} of {w}, and each one [have/x] {b u}
        [have] {w} in {a j} of {b u} each
        """),
    "add": bank("""
        [get] {a more u}
        [buy] {a more u}
        [get] {a more u} of {w}
        [add] {a u}
        [add] {a more u}
        {n} [buy] {a more u} of {w}.
        {m} [give/m] {n.o} {a more u}.
        {m} [bring/m] {n.o} {a u} of {w}.
        ---
        [receive] {a extra u}
        {m} [send/m] {n.o} {a more u} of {w}.
        """),
    "take": bank("""
        [use] {a u}
        [use] {a u} of it
        [use] up {a u}
        [use] {a u} of the {w}
        [sell] {a u}
        [sell] {a u} of the {w}
        [give] {a u} to {m}
        [give] {m} {a u}
        {m} [take/m] {a u}.
        Then {n} [use] {a u}.
        ---
        [remove] {a u}
        {m} [get/m] {a u} of it.
        """),
    "parts": bank("""
        {n} [divide] {r} into {a equal parts}.
        [divide] {r} into {a equal parts}
        [split] {r} into {a equal parts}
        {n} [divide] {r} equally into {a parts}.
        {n} [make] {a equal parts} of {r}.
        [split] {r} evenly into {a parts}
        ---
        [separate] {r} into {a parts} of the same size
        {n} [form] {a equal parts} from {r}.
        """),
}

TRIPS = {
    "speed": bank("""
        [GO] {a u} an hour for {b hours}
        [GO] {a u} per hour for {b hours}
        [GO] {a u} every hour for {b hours}
        [GO] at {a u} per hour for {b hours}
        [GO] {a u} in each of {b hours}
        {n} [GO] for {b hours} at {a u} per hour.
        For {b hours}, {n} [GO] {a u} per hour.
        {n} [GO] {a u} an hour. The trip [take/x] {b hours}.
        ---
        [GO] with a speed of {a u} per hour for {b hours}
        {n} [be] on the road for {b hours} and [GO] {a u} each hour.
        """),
    "pages": bank("""
        [GO] {a u} a day for {b days}
        [GO] {a u} every day for {b days}
        [GO] {a u} per day for {b days}
        [GO] {a u} each day for {b days}
        [GO] {a u} on each of {b days}
        For {b days}, {n} [GO] {a u} a day.
        Every day {n} [GO] {a u}. {n} [do] this for {b days}.
        {n} [GO] {a u} every evening for {b days}.
        ---
        [GO] {a u} daily for {b days}
        Over {b days}, {n} [GO] {a u} per day.
        """),
    "further": bank("""
        [GO] {a more u}
        [GO] another {a u}
        [GO] {a u} more
        Then {n} [GO] {a u}.
        Then {n} [GO] {a more u}.
        Later {n} [GO] another {a u}.
        After a break {n} [GO] {a more u}.
        ---
        [add] {a u}
        After that, {n} [GO] a further {a u}.
        """),
    "second leg": bank("""
        [GO] {a u} an hour for another {b hours}
        [GO] {a u} per hour for {b more hours}
        Then {n} [GO] {a u} per hour for {b hours}.
        Then {n} [GO] at {a u} per hour for {b hours}.
        After a break {n} [GO] {a u} an hour for {b hours}.
        Then {n} [GO] for {b more hours} at {a u} per hour.
        ---
        After that, {n} [GO] for {b hours} with a speed of {a u} per hour.
        Later {n} [GO] {a u} in each of {b hours}.
        """),
    "goal": bank("""
        {n} [want] to [GO/0] {a u} in total.
        {n} [plan] to [GO/0] {a u} in total.
        The goal [be/x] {a u}.
        {n's} goal [be/x] {a u}.
        {n} [have] to [GO/0] {a u} in all.
        {n} [need] to [GO/0] {a u} altogether.
        The {g} [have/x] {a u}.
        ---
        The full {g} [be/x] {a u} long.
        {n} [aim] for {a u} in all.
        """),
}
