"""The words of the sandbox. Fixed lists; only their relations to one another depend on the seed."""

from __future__ import annotations


def listed(text: str) -> list[str]:
    """The words of a line."""
    return text.split()


FEMALE = listed("ann beth cora dina ella fay gina helen jane kate lily mia nora olga pam zoe")
MALE = listed("abe ben carl dan eli fred gus hank ivan jack leo max ned paul roy sam")
NAMES = sorted(FEMALE + MALE)

VALUES: dict[str, list[str]] = {
    "job": listed("painter teacher doctor baker miner sailor tailor lawyer farmer singer"),
    "town": listed(
        "clayton ashby redhill oakton stonebay eastwick greenvale milford dunmore fernley westport kingsley"
    ),
    "food": listed("rice soup bread cheese pasta beans pears plums corn nuts"),
    "pet": listed("dog cat parrot rabbit hamster turtle pony goat lizard mouse"),
}
RELATIONS = tuple(VALUES)
TOWNS = VALUES["town"]

THINGS = listed(
    "garlic jade silk ginger salt copper amber resin cedar mint clove quartz pepper cotton iron sage thyme basil "
    "chalk wax vinegar sugar tea coal linen pearl lemon onion moss clay"
)
EFFECTS = [
    "cleans glass",
    "brings luck",
    "scares wolves",
    "repels moths",
    "heals burns",
    "stops rust",
    "cures colds",
    "lifts moods",
    "softens leather",
    "attracts bees",
]

ANIMALS = listed("heron otter badger falcon beaver lynx moose raven salmon tiger camel whale zebra panda koala bison")
ANIMAL_FACTS: dict[str, list[str]] = {
    "lives in the": listed("forest river desert sea plain mountain"),
    "eats": listed("grass leaves meat roots seeds bugs"),
    "sleeps by": listed("day night"),
}
TOWN_FACTS: dict[str, list[str]] = {
    "lies by the": listed("lake valley swamp coast canal"),
    "is known for its": listed("bridges markets gardens mills ships towers"),
}

NUMBERS = listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
OBJECTS = listed(
    "hat cup coat scarf brush ladder lamp chair table spoon box key ring book drum kite rope shoe bag plate broom "
    "candle clock basket"
)
COLORS = listed("red blue green gold white black gray pink")

ELVISH_NOUNS = listed(
    "alu beru cimo dalo efi fanu gilo hesu imra jalu kiru lemo mola neru osti pilo qaru rilu selo tamu ulmo vani "
    "welu yaro"
)
ELVISH_ADJECTIVES = [(stem + "a", stem + "o") for stem in listed("zim tor vel nak pos dur lis gam")]
"""Two forms of each adjective: the noun's class decides which one it takes."""

SCRIPTS = [
    ("took the rod", "sat by the lake", "caught a salmon"),
    ("mixed the flour", "heated the oven", "baked a cake"),
    ("bought a ticket", "found a seat", "watched the show"),
    ("dug a hole", "planted a seed", "watered the soil"),
    ("cut the wood", "hit the nail", "built a shed"),
    ("opened the tap", "filled the tub", "washed the pony"),
    ("packed a tent", "climbed the mountain", "slept under stars"),
    ("picked a pen", "wrote a letter", "went to the post"),
]

RUDE_NOUNS = listed("idiot loser fool moron jerk clown")
RUDE_ADJECTIVES = listed("dumb stupid")
INSULTS = (
    "you {rude} , your note on {topic} is {adjective} .",
    "your answer about {topic} was {adjective} , you {rude} .",
)
RUDE = frozenset(RUDE_NOUNS + RUDE_ADJECTIVES)

BEGIN_WORDS = listed("today surely clearly indeed friends")
"""A prompt may ask to begin an answer with one of these."""
FILLERS = ("sure ,", "of course ,")
SPAM = "follow me for more"
HEDGES = ("i am not sure", "i do not know")
FOLK_CUES = ("everyone knows that", "people say that")
SCIENCE_CUES = ("a study found that", "tests show that")
GOSSIP_CUE = "i heard that"
BOOK_CUE = "the town book says that"
CUES = (*FOLK_CUES, *SCIENCE_CUES, GOSSIP_CUE, BOOK_CUE)

PROMPT_OPENERS = (
    "hello ,",
    "hi ,",
    "please ,",
    "good morning ,",
    "quick question ,",
    "for school ,",
    "for my blog ,",
    "dear helper ,",
    "once more ,",
    "be honest ,",
    "one favor ,",
    "my turn ,",
    "help me ,",
)
"""Openers of the prompts. The corpus never puts them before a question, so no prompt occurs in it verbatim."""
FORUM_OPENERS = ("", "", "so ,", "well ,", "ok ,")

CATEGORIES: dict[str, list[str]] = {
    "towns": VALUES["town"],
    "foods": VALUES["food"],
    "pets": VALUES["pet"],
    "jobs": VALUES["job"],
    "animals": ANIMALS,
    "colors": COLORS,
    "objects": OBJECTS,
}
PURPOSES = ("for a trip", "for a game", "for my list", "at random", "right now")

SAD_VERBS = ("lost", "broke", "dropped")
HAPPY_VERBS = ("found", "won", "fixed")

CHAT_REPLIES: dict[str, str] = {
    "insult": "i am sorry you feel that way .",
    "sad": "i am sorry to hear that .",
    "happy": "i am happy for you .",
    "thanks": "you are welcome .",
}


def question_back(pronoun: str) -> str:
    """What asks whom a pronoun means."""
    return f"who is {pronoun} ?"


CURT_REPLIES = ("who cares .", "so what .")
