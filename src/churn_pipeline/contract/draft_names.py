"""What the names of columns and levels suggest. Every pattern is searched in the lower-case words of a name."""

import re

TRUE_WORDS = ("yes", "1", "true", "y", "t", "true.")
FALSE_WORDS = ("no", "0", "false", "n", "f", "false.")

CHURN = re.compile(r"churn|attrit")
LEAVE = re.compile(
    r"\b(exit(ed)?|cancel\w*|(has ?)?left|leav\w*|terminat\w*|unsubscrib\w*|lapsed?|closed|quit|resign\w*|defect(ed|ion)|"
    r"deactivat\w*|lost)\b"
)
STAY = re.compile(r"\b(retained|retention|renewed|renews|stay(s|ed)?)\b")
ACTIVE = re.compile(r"^(is |still )*(an? )?(active|subscribe[rd])( (member|customer|user|flag))?$")
OUTCOME = re.compile(r"\b(target|label|response|outcome|class|status|y)\b")
AROUND_A_TARGET = re.compile(
    r"\b(is|has|was|did|the|flag|label|value|status|target|indicator|ind|binary|yn|customer|cust|client|user|member|"
    r"subscriber|account|\d+)\b"
)
ABOUT_A_CHURN = re.compile(
    r"\b(reasons?|categor\w*|type|date|score|risk|prob\w*|predict\w*|pred|descriptions?|comments?|month)\b"
)
NOT_A_TARGET = re.compile(
    r"\b(reasons?|categor\w*|type|date|score|risk|prob\w*|predict\w*|pred|descriptions?|comments?|previous\w*|prior|"
    r"past|ever|before|former\w*|count|number|num)\b"
)
CHURNED_LEVEL = re.compile(
    r"\b(churn(ed|er)?|attrit\w*|cancell?ed|exited|left|terminated|lapsed|deactivated|unsubscribed|defected|departed)\b"
)
CLOSED_LEVEL = re.compile(r"\b(closed|lost|gone|inactive)\b")
NEGATION = re.compile(r"\b(no|not|non|never)\b")

CUSTOMER_ID = re.compile(
    r"^id$|\b(cust(omer)?|client|subscriber|user|member|account|policy) ?(id|no|num|number|key|ref)\b|\b(msisdn|uuid)\b"
)
ID = re.compile(r"\bids?\b")
ROW_NUMBER = re.compile(
    r"^(unnamed|row|index|serial|record|sno|nr|no)\b( ?(\d+|id|no|num|number|index|nr))*$|^rownumber$"
)
PLACE_CODE = re.compile(
    r"\b(post(al)? ?codes?|zip ?codes?|zip|plz|pin ?code|branch|city|region|district|county|state|province|country|"
    r"area ?code|sort ?code)\b"
)
OTHER_CODE = re.compile(r"\b(code|id|sector|territory|store|shop|dealer|warehouse)$")
QUANTITY = re.compile(
    r"^(number|num|nb|no|n) |"
    r"\b(counts?|visits?|tiers?|rank\w*|levels?|scores?|distance|population|amounts?|amt|totals?|sum|days|"
    r"weeks|months?|years?|calls|minutes|seconds|charges?|costs?|fees?|bills?|prices?|rates?|per|size|balances?|incomes?|"
    r"salary|salaries|wages?|revenues?|turnover|sales|spen[dt]\w*|usage|limits?|values?|bytes|[kmg]b|volume|payments?|"
    r"points|premiums?|clv|cltv|duration|length|lifetime|tenure|age|consumption|mileage)\b"
)
MONEY = re.compile(r"\b(charges?|fees?|bills?|prices?|revenues?|spen[dt]\w*|premiums?|balances?|values?|amounts?)\b")
PERSONAL_TEXT = re.compile(
    r"\b(surname|(last|first|full|family|given|middle)? ?name|e ?mail|phone|telephone|address|street|comments?|notes?|"
    r"remarks?|description|url|feedback)$"
)
PERCENTAGE = re.compile(r"\b(pct|perc|percent(age)?)\b")
SHARE = re.compile(r"\b(share|ratio|rate|fraction|proportion|prob\w*|utili[sz]ation|pct|perc|percent(age)?)\b")
PROTECTED = re.compile(
    r"\b(gender|sex|sexual orientation|race|ethnic\w*|religion|nationality|citizenship|marital\w*|married|"
    r"marriage|civil status|disab\w*|senior ?citizen|birth ?(year|date|day)?|year of birth|yob|dob|pregnan\w*)\b|"
    r"^(under|over) \d\d$"
)
AGE = re.compile(r"\bages?\b")
AGE_OF_A_THING = re.compile(
    r"\b(account|subscription|subscr|contract|device|equipment|handset|phone|policy|card|membership|loan|vehicle|car|"
    r"house|network|line|service|relationship|tenure|tariff|plan|product|order|invoice|bill|debt|book|router|modem|"
    r"days|weeks|months|cell|mobile|machine|meter|installation|sim|ticket|profile|page|company|business)\b"
)


def words(name: str) -> str:
    """The words of a name in lower case, separated by blanks: 'HeadOfHousehold ages' is 'head of household ages'."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return re.sub(r"[\W_]+", " ", apart).strip().lower()


def is_protected(name: str) -> bool:
    """Whether the name is that of a protected attribute, such as a person's age, but not the age of an account."""
    text = words(name)
    return bool(PROTECTED.search(text) or (AGE.search(text) and not AGE_OF_A_THING.search(text)))


def means_churned(level: object, closed_too: bool = False) -> bool:
    """Whether the level of a status says that the customer churned."""
    text = words(str(level))
    found = CHURNED_LEVEL.search(text) or (closed_too and CLOSED_LEVEL.search(text))
    return bool(found) and not NEGATION.search(text)
