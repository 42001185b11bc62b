"""Chatter in English, and about code."""

from tests.context.summaries import chatter
from tests.context.summaries.block import Block

ENGLISH = Block(
    "english",
    [
        ("user", "Hi there! Good morning. My name is Zainab Qureshi and I run a small bakery in Lahore."),
        (
            "assistant",
            ("Good morning! It's lovely to meet you. Running a bakery is such a rewarding kind of work, and there is "
            "always something new to learn about it. Many bakers say that the early hours are the hardest part, "
            "while others say that it is the constant cleaning. Is there anything that I can help you with today? "
            "Feel free to ask me about recipes, about planning, or about anything else that comes to mind."),
        ),
        ("user", "Haha thanks. So we want to open a second shop. It's a bit scary to be honest."),
        (
            "assistant",
            ("That is completely understandable! Expanding is a big step and it is natural to be a little nervous. A "
            "good way to begin is to look at how the present shop does, at which hours it is busiest, and at what "
            "people say when they leave. It also helps to walk around the new neighbourhood at different times of "
            "the day, simply to see who passes by and what they carry. What budget do you have in mind?"),
        ),
        ("user", "Around 2,450,000 rupees."),
        (
            "assistant",
            ("Great, that gives us something to work with. Usually the largest part goes into the oven and into the "
            "fitting of the room, then there is the deposit, the sign over the door, and the first weeks of "
            "ingredients. It is wise to keep some of it aside for surprises, because there are always surprises. "
            "Walls turn out to be damp, and electricians turn out to be late. Don't let that discourage you."),
        ),
        ("user", "ok makes sense"),
        ("user", "We looked at two places. We decided to take the one on MM Alam Road, not the one in Model Town."),
        (
            "assistant",
            ("Wonderful choice! A lively street brings people who did not plan to buy anything, and the smell of "
            "fresh bread does the rest. You may want to think about the front window, since it is what people see "
            "first. Warm light makes crusts look better than cold light does, and a few loaves in a basket often "
            "say more than a poster. I hope this helps, and let me know if you would like more ideas!"),
        ),
        ("user", "The lease starts on 15 April 2026. The landlord is called Mr. Farooq Dar."),
        (
            "assistant",
            ("Thank you for telling me. A lease is worth reading slowly, together with somebody who has read many of "
            "them. Look at who pays for repairs, at what happens when you leave early, and at whether the rent may "
            "go up. It is often possible to ask for a few weeks without rent while the room is being fitted. "
            "Landlords rarely offer that by themselves, though many of them agree when somebody asks politely."),
        ),
        ("user", "lol good point. btw please always answer me in short bullet points, I read on my phone"),
        ("assistant", "Of course! - Short points it is. - Let me know what you would like to look at next."),
        ("user", "Also I'm allergic to hazelnuts so never suggest recipes with them for tasting"),
        ("assistant", "- Noted, no such recipes for tasting. - There are many other lovely fillings to choose from."),
        ("user", "thanks! I was wondering about the weather the other day, it has been raining so much"),
        (
            "assistant",
            ("- Rain can be a nuisance for deliveries. - People do like to sit inside with something warm, though. - "
            "A small shelf for umbrellas near the door is a kind gesture that customers remember. - Some bakers "
            "bake a little less on wet days and a little more of what keeps until the next one."),
        ),
        ("user", "yeah true. ok what else. my brother thinks we should sell coffee too"),
        (
            "assistant",
            ("- Coffee goes well with pastry, and it keeps people longer in the shop. - It needs a machine, somebody "
            "who likes to use it, and a place to sit. - Perhaps begin with something simple and see who orders it. "
            "- A good grinder matters more than most people think, and so does the water."),
        ),
        ("user", "Fine, we'll order the Rofco B40 oven next week then, Imran pays the first half."),
        ("assistant", "- Sounds like a plan! - Ovens of that kind are loved by many small bakeries."),
        ("user", "Which licence do we need from the food authority?"),
    ],
    [
        "Zainab Qureshi", "Lahore", "2,450,000", "MM Alam Road", "15 April 2026", "Farooq Dar", "bullet points",
        "hazelnuts", "Rofco B40", "licence",
    ],
    chatter.ENGLISH,
)  # fmt: skip

CODE = Block(
    "code",
    [
        ("user", "hey, I'm porting our billing service from Flask to FastAPI, we use Python 3.11 and PostgreSQL 16"),
        (
            "assistant",
            ("Nice! That is a common move and usually a pleasant one. The general approach is to keep the functions "
            "that do the work as they are, and to replace only the thin layer that speaks HTTP. People often begin "
            "with the routes that are read-only, since there is less that can go wrong with them. It helps to keep "
            "both running side by side for a while and to compare what they answer."),
        ),
        (
            "user",
            ("this is the function that breaks:\n\n```python\nimport decimal\n\n\n"
            "def apply_discount(invoice: Invoice, percent: Decimal) -> Decimal:\n    total = invoice.total\n"
            "    for line in invoice.lines:\n        total -= line.amount * percent / 100\n"
            "        log.debug('line %s', line.id)\n    if total < 0:\n        total = Decimal(0)\n"
            "    return total.quantize(Decimal('0.01'))\n```\n\nit raises InvalidOperation for invoice INV-20931"),
        ),
        (
            "assistant",
            ("Thanks for the code. There are several things that can lead to that. A context with too little "
            "precision is one, and a value that is not a number is another. The easiest way to find out is to look "
            "at the values just before the last line, for instance with a breakpoint or with a print:\n\n"
            "```python\nprint(repr(total))\nprint(decimal.getcontext())\n```\n\nThat will show what is going on, "
            "and from there it is usually a small step to the cause. Let me know what you see!"),
        ),
        ("user", "ah ok. the total was NaN, because the tax rate is missing for that customer"),
        (
            "assistant",
            ("That explains it. A missing value that becomes a number which is not one tends to travel a long way "
            "before anybody notices, and then it surfaces somewhere that has nothing to do with it. The usual cure "
            "is to refuse it at the door, with an error that names what is missing. Whether that is better than a "
            "default depends on who reads the result, and on how sure one can be about the default."),
        ),
        ("user", "ok cool"),
        ("user", "Let's raise MissingTaxRate in load_customer() and set TAX_TIMEOUT = 45 in settings.py."),
        (
            "assistant",
            ("That sounds sensible. Errors of your own make it easier for callers to tell one thing from another, "
            "and names that say what is missing are pleasant to read in a log. It may be worth a test or two, so "
            "that nobody takes it out again by accident. Tests that fail first and pass afterwards are the ones "
            "that people trust most."),
        ),
        ("user", "please don't use floats anywhere and keep type hints in every example"),
        ("assistant", "Of course, understood. Examples will have them from here on."),
        ("user", "haha my coffee machine broke, today is not my day"),
        (
            "assistant",
            ("Oh no! There are days like that, when everything seems to happen at once. A short walk can do wonders, "
            "and it often leads past a place that sells coffee. The bug will still be there afterwards, sadly, but "
            "it tends to look smaller after a break."),
        ),
        ("user", "Release is planned for 2026-05-20, Katarzyna reviews the migration"),
        ("assistant", "Sounds good, there is some time left for it then. Reviews go best in small portions."),
        ("user", "how do we roll back the alembic migration if it fails halfway?"),
    ],
    ["FastAPI", "PostgreSQL 16", "apply_discount", "INV-20931", "NaN", "MissingTaxRate", "TAX_TIMEOUT = 45", "floats",
     "2026-05-20", "Katarzyna", "alembic"],
    chatter.ENGLISH,
)  # fmt: skip
