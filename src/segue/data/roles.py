"""Which column of a table plays which role: canonical names, aliases, and explicit choices."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from segue.data.checks import shown_names
from segue.errors import DataError

# A run keeps weights in 32 bits; whatever takes one is bounded by that: float(np.finfo("f4").max).
MAX_WEIGHT = 3.4028234663852886e38


@dataclass(frozen=True)
class Role:
    """What a column is for: its canonical name, the option that chooses it, folded aliases.

    Folded: lower case, letters and digits only. Aliases stand in one string, between spaces. `flag`
    is the option on the command line, where that has another name than in Python.
    """

    name: str
    option: str
    aliases: str
    is_required: bool = True
    flag: str | None = None

    @property
    def choice(self) -> str:
        """How a user names the column, on the command line and in Python."""
        flag = self.flag or f"--{self.option.replace('_', '-')}"
        return f"{flag} ({self.option}= in Python)"


USER = Role(
    "user_id",
    "user_col",
    "userid user uid customerid customer custid visitorid visitor "
    "reviewerid reviewer clientid client memberid accountid",
)
ITEM = Role(
    "item_id",
    "item_col",
    "itemid item iid movieid movie filmid productid product prodid asin sku bookid "
    "book isbn songid trackid track artistid articleid article newsid gameid businessid "
    "contentid videoid",
)
TIME = Role(
    "timestamp",
    "time_col",
    "timestamp time ts date datetime unixtime unixtimestamp unixreviewtime eventtime "
    "eventtimestamp createdat timestamps",
)
WEIGHT = Role(
    "weight",
    "weight_col",
    "weight rating ratings score stars overall",
    is_required=False,
)
EVENT = Role(
    "event",
    "event_col",
    "event eventtype behavior behaviour behaviortype behaviourtype action actiontype "
    "interactiontype",
    is_required=False,
)
TITLE = Role(
    "title",
    "title_col",
    "title name movietitle itemtitle producttitle itemname productname moviename "
    "booktitle tracktitle songtitle",
    is_required=False,
    flag="--items-title-col",
)
CATALOGUE_ITEM = replace(ITEM, flag="--items-id-col")


def find_columns(
    names: Sequence[str],
    wanted: Mapping[Role, str | None],
    where: str,
    *,
    preferred: Mapping[Role, str] | None = None,
    needed: Collection[Role] = (),
) -> dict[Role, str]:
    """The column of each role: the explicit one, else the canonical name, else the only alias.

    A role that is neither required nor needed has none where two aliases claim it; see
    `unsettled_notes`.

    Args:
        names: The table's columns.
        wanted: The roles, each with the column that was chosen for it, or None.
        where: The table's name in messages.
        preferred: Columns that are tried before the canonical names.
        needed: Roles that must be settled although they are optional.

    Raises:
        DataError: A chosen column is absent or plays two roles, a required role has no column,
            or two aliases claim a role that must be settled. The line lists the columns and the
            option to use.
    """
    chosen = {role: column for role, column in wanted.items() if column is not None}
    _refuse_bad_choices(chosen, names, where)
    free = [name for name in names if name not in chosen.values()]
    likely = {role: column for role, column in (preferred or {}).items() if column in free}
    found = {}
    for role in wanted:
        aliases = _aliases(role, free)
        settled = chosen.get(role) or likely.get(role)
        if settled is None and len(aliases) > 1 and (role.is_required or role in needed):
            raise DataError(f"{where}: {_could_each_be(role, aliases)}")
        found[role] = settled or (aliases[0] if len(aliases) == 1 else None)
    for role, column in found.items():
        if column is None and role.is_required:
            raise DataError(
                f"{where} has no column for {role.name}; its columns are {shown_names(names)}: "
                f"name one with {role.choice}"
            )
    return {role: column for role, column in found.items() if column is not None}


def is_usual_name(name: str) -> bool:
    """Whether a column of that name plays a role by itself."""
    roles = (USER, ITEM, TIME, WEIGHT, EVENT, TITLE)
    return any(name == role.name or _folded(name) in role.aliases.split() for role in roles)


def column_notes(columns: Mapping[Role, str]) -> list[str]:
    """One line for each column that was not called by its canonical name."""
    return [
        f"{role.name} is read from the column {column!r}"
        for role, column in columns.items()
        if column != role.name
    ]


def unsettled_notes(
    names: Sequence[str], wanted: Collection[Role], columns: Mapping[Role, str]
) -> list[str]:
    """One line for each role without a column for the reason that two aliases claim it."""
    free = [name for name in names if name not in columns.values()]
    claims = {role: _aliases(role, free) for role in wanted if role not in columns}
    return [
        f"{role.name} is left out: {_could_each_be(role, aliases)}"
        for role, aliases in claims.items()
        if len(aliases) > 1
    ]


def _aliases(role: Role, names: Collection[str]) -> list[str]:
    """The columns that could play a role: the canonical name alone where there is one."""
    if role.name in names:
        return [role.name]
    return [name for name in names if _folded(name) in role.aliases.split()]


def _could_each_be(role: Role, aliases: Sequence[str]) -> str:
    return f"{shown_names(aliases)} could each be {role.name}: name one with {role.choice}"


def _refuse_bad_choices(chosen: Mapping[Role, str], names: Sequence[str], where: str) -> None:
    role_of: dict[str, Role] = {}
    for role, column in chosen.items():
        if column not in names:
            raise DataError(
                f"{where} has no column {column!r} for {role.name}; its columns are "
                f"{shown_names(names)}: name one with {role.choice}"
            )
        if column in role_of:
            raise DataError(
                f"{where}: the column {column!r} cannot be both {role_of[column].name} and "
                f"{role.name}: name another with {role.choice}"
            )
        role_of[column] = role


def _folded(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
