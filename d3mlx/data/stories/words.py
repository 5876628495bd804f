"""Words of the stories: names, things by category, containers, places, units and made-up words.

A held-out part of the names and things never occurs in training or validation problems. The hash of a word decides.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Literal

Words = Literal["known", "unknown"]

HELD_OUT_SHARE = 15
"""Percent of the names and things, real and made-up, that are held out."""

MADE_UP = 0.14
"""Chance that a name or a thing is made up. About a quarter of the problems contain one."""


def several(text: str) -> tuple[str, ...]:
    """Return the words of a text."""
    return tuple(text.split())


SHE = several(
    "Anna Ella Mia Emma Olivia Sophie Lena Clara Julia Laura Maria Elena Sara Nina Eva Ida Greta Ingrid Astrid Freya "
    "Sigrid Maren Karin Linnea Elsa Hanna Marta Zofia Kasia Agata Ewa Irena Olga Tatiana Natasha Svetlana Ludmila Vera "
    "Katya Milena Jelena Dragana Ivana Petra Zuzana Lucie Tereza Ilona Katalin Zsofia Reka Ioana Raluca Bianca Chiara "
    "Giulia Francesca Paola Lucia Carmen Rosa Pilar Ines Beatriz Catarina Mariana Luisa Camila Valentina Daniela "
    "Gabriela Ximena Marisol Esperanza Amelie Chloe Camille Manon Elodie Margot Juliette Fatima Aisha Leila Yasmin "
    "Noor Samira Zahra Amina Khadija Salma Mariam Layla Shirin Parisa Nasrin Azadeh Elif Zeynep Ayse Selin Defne "
    "Priya Ananya Divya Kavita Lakshmi Meera Sunita Anjali Deepa Nisha Pooja Rani Shreya Tara Indira Mei Ling Xiu "
    "Yan Hua Yuki Sakura Hana Aiko Emiko Keiko Naomi Haruka Yoko Akemi Soyeon Minji Jiyeon Eunji Linh Thuy Mai Huong "
    "Lan Siti Dewi Putri Ayu Intan Malia Leilani Moana Ngaire Amara Chidinma Ngozi Adaeze Folake Yetunde Abena Akosua "
    "Efua Ama Wanjiku Achieng Njeri Makena Thandiwe Nomsa Zanele Lindiwe Naledi Palesa Tsehay Almaz Hiwot Makeda Rivka "
    "Tamar Noa Shira Alice Grace Ruby Lily Daisy Molly Lucy Emily Holly Megan Bridget Siobhan Niamh Aoife Catriona "
    "Fiona Isla Rhiannon Bronwyn Dorothy Edith Harriet Matilda Penelope Phoebe Eleni Dimitra Sofia Cara Gina Iris"
)
HE = several(
    "Tom Ben Dan Finn Hugo Jack Leo Noah Max Paul Peter Jonas Lukas Felix Anton Emil Oskar Otto Karl Hans Klaus Jens "
    "Sven Lars Bjorn Olaf Magnus Anders Nils Erik Gustav Henrik Mikkel Rasmus Aksel Piotr Marek Tomasz Jakub Wojtek "
    "Pavel Ivan Dmitri Sergei Boris Yuri Igor Oleg Mikhail Andrei Viktor Bogdan Milan Dragan Goran Luka Marko Stefan "
    "Zoran Tibor Laszlo Istvan Gabor Radu Mihai Marco Luca Matteo Paolo Giorgio Antonio Enzo Carlos Diego Pablo Miguel "
    "Javier Mateo Rafael Joao Tiago Rui Bruno Thiago Felipe Pierre Luc Antoine Mathieu Etienne Gaston Ahmed Omar Ali "
    "Hassan Karim Tariq Yusuf Ibrahim Khalid Bilal Samir Rashid Reza Darius Kaveh Mehmet Emre Kerem Cem Arjun Rahul "
    "Vikram Sanjay Anil Rohan Dev Kiran Ravi Suresh Nikhil Amit Wei Jun Hao Feng Bo Kenji Hiroshi Takeshi Haruto "
    "Daiki Ren Satoshi Minho Jaehyun Sungmin Duc Minh Tuan Bao Budi Agus Eko Adi Wayan Kalani Tane Wiremu Kwame Kofi "
    "Kwesi Yaw Emeka Chidi Obinna Tunde Segun Babajide Kamau Otieno Kiprop Juma Thabo Sipho Mandla Bongani Tendai "
    "Dawit Tesfaye Bekele Abel Eitan Avi Yosef Dov George Henry Oliver Harry Alfie Owen Rhys Dylan Gareth Ewan Angus "
    "Callum Hamish Liam Sean Declan Cormac Eoin Nikos Kostas Yannis Spiros Samuel Walter Ernest Theo Oscar Gavin"
)
EITHER = several("Kim Alex Robin Sam Jo Charlie Sasha Nour Ari Noel Rowan Quinn Avery Riley Morgan Jamie Taylor Toni")
NAMES = (*SHE, *HE, *EITHER)

IRREGULAR = {
    "loaf": "loaves",
    "leaf": "leaves",
    "scarf": "scarves",
    "shelf": "shelves",
    "knife": "knives",
    "sheep": "sheep",
    "goose": "geese",
    "fish": "fish",
    "child": "children",
    "photo": "photos",
    "kiwi": "kiwis",
    "foot": "feet",
    "tomato": "tomatoes",
    "potato": "potatoes",
    "mango": "mangoes",
}


LARGE_CONTAINERS = several(
    "box bag basket crate carton sack chest barrel bin cart wagon trunk container shelf cabinet suitcase bucket case"
)
SMALL_CONTAINERS = several(
    "box bag basket jar pack tin tray tub packet parcel pouch drawer backpack can carton case bucket envelope"
)


@dataclass(frozen=True)
class Category:
    """Things of one kind, and the kinds of events that fit them. things: singular words."""

    things: tuple[str, ...]
    gains: tuple[str, ...]
    losses: tuple[str, ...]
    verb: str
    """Verb for getting or making them every day."""
    containers: tuple[str, ...]
    """Containers that fit. Animals have none."""


def category(things: str, gains: str, losses: str, verb: str, containers: str = "large") -> Category:
    """Return a category. containers: "large" or "small" ones, or "none"."""
    fitting = {"large": LARGE_CONTAINERS, "small": SMALL_CONTAINERS, "none": ()}[containers]
    return Category(several(things), several(gains), several(losses), verb, fitting)


CATEGORIES = {
    "fruit": category(
        "apple pear peach plum cherry orange lemon banana fig mango apricot melon lime grape kiwi strawberry tomato "
        "carrot potato onion cucumber pepper radish turnip pumpkin olive walnut almond chestnut mushroom raspberry "
        "blueberry avocado papaya",
        "buy pick get", "eat give sell", "pick",
    ),
    "baked": category(
        "cookie muffin cake pie bun eclair pancake waffle pretzel doughnut cupcake biscuit scone brownie tart loaf "
        "bagel sandwich dumpling pizza cracker croissant",
        "buy make get", "eat give sell", "bake", "small",
    ),
    "sweets": category(
        "candy chocolate lollipop caramel gumdrop toffee jellybean mint marshmallow", "buy get", "eat give", "get",
        "small",
    ),
    "nature": category(
        "shell pebble stone feather acorn pinecone leaf fossil twig crystal stick", "find get", "lose give", "find",
        "small",
    ),
    "collection": category(
        "marble stamp card jewel button bead sticker badge postcard photo poster comic magazine key medal ribbon",
        "buy find get", "lose give sell", "collect", "small",
    ),
    "toys": category(
        "toy doll ball kite puzzle car robot balloon block puppet drum whistle game truck train dinosaur trumpet",
        "buy get", "lose give break sell", "get",
    ),
    "supplies": category(
        "pencil pen crayon marker eraser notebook sponge ruler brush candle battery nail screw tile brick board "
        "straw napkin match bulb ticket bandage magnet coupon seed hook",
        "buy get", "use give lose", "buy", "small",
    ),
    "fragile": category(
        "glass cup plate bowl mug vase saucer lamp egg mirror dish lantern", "buy get", "break sell give", "buy",
    ),
    "books": category("book novel map dictionary diary atlas notepad songbook", "buy get", "give lose sell", "buy"),
    "clothes": category(
        "shirt sock hat glove coat dress shoe belt sweater mitten cap jacket skirt tie blanket towel pillow apron vest "
        "scarf", "buy make get", "sell give lose", "sew",
    ),
    "flowers": category("flower rose tulip daisy lily sunflower violet poppy orchid daffodil", "pick buy get",
        "give sell", "pick"),
    "animals": category("cow sheep goat hen duck goose horse rabbit pig pony lamb donkey turkey hamster", "buy get",
        "sell give", "buy", "none"),
    "crafts": category("bracelet necklace mask picture drawing painting bow wreath sign birdhouse ornament snowflake",
        "make get", "sell give", "make"),
    "goods": category(
        "gift present phone clock bell spoon fork knife radio basketball umbrella", "buy get", "sell give lose", "buy",
    ),
}  # fmt: skip

SHOPS = several("market shop store mall fair supermarket bazaar kiosk stall boutique")
OUTDOORS = several(
    "park garden forest field street playground yard meadow valley square station harbor barn village woods backyard"
)
VEHICLES = several("bus train tram ferry subway streetcar shuttle")
ROOMS = several(
    "room hall museum library cafe cinema gym theater classroom zoo restaurant stadium pool park shop garden bakery "
    "office church"
)
RECEIVERS = several("friend child neighbor cousin student classmate guest player teammate kid sister brother")
ROLES = several("farmer teacher baker gardener nurse painter student pilot doctor sailor tailor carpenter driver")
SHE_ROLES = several("girl woman grandmother")
HE_ROLES = several("boy man grandfather")
KIN = {
    "my sister": "she", "my mother": "she", "my aunt": "she", "my brother": "he", "my father": "he", "my uncle": "he"
}  # fmt: skip
MONEY = several("dollar euro coin cent")
LENGTHS = several("meter foot yard inch centimeter")
DISTANCES = several("kilometer mile")
VOLUMES = several("liter gallon pint")
WEIGHTS = several("kilogram pound gram")
WEEKDAYS = several("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

ONSETS = several("b bl br d dr f fl g gl gr h j k kl l m n p pl pr r s sk sl sn st t tr v w z qu sh")
VOWELS = several("a e i o u a e i o u ai oo ee ou")
CODAS = ("", "", "", "", "l", "m", "n", "r", "rb", "nd", "lt", "mp", "x")


def is_held_out(word: str) -> bool:
    """Return whether a name or a singular thing is held out from training."""
    return zlib.crc32(word.lower().encode()) % 100 < HELD_OUT_SHARE


@cache
def words_of(words: tuple[str, ...], kind: Words) -> tuple[str, ...]:
    """Return the words that are known or held out."""
    return tuple(word for word in words if is_held_out(word) == (kind == "unknown"))


def plural(word: str) -> str:
    """Return the plural of a noun."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith("y") and word[-2] not in "aeou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "z", "ch", "sh")) else f"{word}s"


def with_article(noun: str) -> str:
    """Return a noun after "a" or "an"."""
    return f"an {noun}" if noun[0].lower() in "aeio" else f"a {noun}"


def made_up(rng: random.Random, kind: Words) -> str:
    """Return a pronounceable word of 2 to 4 syllables that is known or held out."""
    while True:
        count = rng.choice((2, 2, 2, 2, 3, 3, 4))
        word = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(count)) + rng.choice(CODAS)
        if len(word) <= 10 and is_held_out(word) == (kind == "unknown"):
            return word
