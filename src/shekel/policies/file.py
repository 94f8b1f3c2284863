"""The policy file (`shekel.toml`): policies, plans, prices and aliases as TOML. Reads a text; opens nothing.

    [policies.users]
    per = "user.id"                              # or a list: one budget for each combination
    limit = "$5/day + 100 calls/hr"              # or a list; or plans, default_plan, plan_of and plan_by
    match = { environment = "production", model = "gpt-4o*" }
    mode = "strict"                              # and at_limit, warn_at, fallback, unpriced, as in `per`

    [prices.house-model]
    input = 1.5                                  # USD per million tokens; or: house-model = "free" under [prices]
    output = 6.0

    [aliases]
    our-deployment = "gpt-4o-mini"

What is wrong is said in one sentence with the line, the table and the key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..budgets.options import nearest
from ..shown import shown
from .in_force import checked
from .policy import Policy, per

PlanOf = Callable[[str], "str | None"]

_POLICY = dict.fromkeys(
    ("per", "limit", "mode", "at_limit", "warn_at", "unpriced", "match", "fallback", "plans", "plan_of",
     "default_plan", "plan_by")
)  # fmt: skip
_TABLES = dict.fromkeys(("policies", "prices", "aliases"))


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """What a policy file says.

    Attributes:
        policies: in the order of the file.
        prices: as `shekel.configure(prices=…)` takes them.
        aliases: the same.
    """

    policies: tuple[Policy, ...] = ()
    prices: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)


def read(text: str, source: str, plan_of: PlanOf | Mapping[str, PlanOf] | None = None) -> PolicyFile:
    """Read a policy file.

    Args:
        text: its content.
        source: its name, for messages.
        plan_of: the program's function that says the plan of a value, for every policy with plans that has no table of
            its own; or functions by the policy's name.

    Raises:
        ValueError: it is no TOML, or says something that makes no sense.
    """
    return _Reader(text, source, plan_of).read()


class _Reader:
    def __init__(self, text: str, source: str, plan_of: PlanOf | Mapping[str, PlanOf] | None) -> None:
        self.text = text
        self.source = source
        self.plan_of = plan_of

    def read(self) -> PolicyFile:
        try:
            tables = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{self.source} is no TOML: {error}.") from None
        for name in tables:
            if name not in _TABLES:
                self.wrong((name,), f"is no table of a policy file: {nearest(name, _TABLES)}")
        if not tables:
            raise ValueError(
                f"{self.source} says nothing: write a table such as [policies.users], or end all policies with "
                "shekel.configure(policies=[])."
            )
        for name, table in tables.items():
            if not isinstance(table, dict) or not table:
                self.wrong((name,), f"must be a table with entries, such as [{name}.NAME]; leave it out for none.")
        policies = [self.policy(name, table) for name, table in tables.get("policies", {}).items()]
        if isinstance(self.plan_of, Mapping):
            for name in self.plan_of:
                if name not in tables.get("policies", {}):
                    raise ValueError(f"plan_of: {self.source} has no policy named {shown(name)}.")
        return PolicyFile(
            checked(policies), self.prices(tables.get("prices", {})), self.aliases(tables.get("aliases", {}))
        )

    def policy(self, name: str, table: Any) -> Policy:
        path = ("policies", name)
        if not isinstance(table, dict):
            self.wrong(path, f"must be a table: write [policies.{name}] and its keys below.")
        for key in table:
            if key not in _POLICY:
                self.wrong((*path, key), f"is no key of a policy: {nearest(key, _POLICY)}")
        keys = table.get("per")
        if keys is None:
            self.wrong(path, 'has no key per: say by which scope key, such as per = "user.id".')
        given = list(keys) if isinstance(keys, list) else [keys]
        options = {key: value for key, value in table.items() if key not in ("per", "limit")}
        if "limit" in table:
            if "plans" in table:
                self.wrong((*path, "limit"), "stands beside plans: keep one, and make another policy for the other.")
            given.append(table["limit"])
        elif "plans" not in table:
            self.wrong(path, 'has neither limit nor plans: write limit = "$5/day".')
        elif "plan_of" not in options:
            function = self.plan_of.get(name) if isinstance(self.plan_of, Mapping) else self.plan_of
            if function is not None:
                options["plan_of"] = function
        try:
            return per(*given, name=name, **options)
        except (ValueError, TypeError) as error:
            self.wrong((*path, *_meant(str(error), table)), str(error))

    def prices(self, table: Mapping[str, Any]) -> Mapping[str, Any]:
        if table:
            from ..pricing import Prices

            scratch = Prices()  # the price list itself is not loaded for this
            for model, price in table.items():
                try:
                    scratch.set(model, price)
                except ValueError as error:
                    self.wrong(("prices", model), str(error))
        return table

    def aliases(self, table: Mapping[str, Any]) -> Mapping[str, str]:
        if table:
            from ..pricing import Prices

            scratch = Prices()
            for name, target in table.items():
                try:
                    scratch.alias(name, target)
                except ValueError as error:
                    self.wrong(("aliases", name), str(error))
        return table

    def wrong(self, path: tuple[str, ...], problem: str) -> NoReturn:
        table = ".".join(path[:2])
        key = "".join(f" {each}" for each in path[2:3])
        raise ValueError(f"{self.source}, line {line_of(self.text, path)}: [{table}]{key} {_said(problem)}") from None


def _said(problem: str) -> str:
    """A sentence that begins with what is wrong follows the place; one of its own follows a colon."""
    return problem if problem.startswith(("is ", "has ", "must ", "stands ")) else f"→ {problem}"


def _meant(problem: str, table: Mapping[str, Any]) -> tuple[str, ...]:
    """The key that an error of `per` is about, as far as its sentence says."""
    for key in sorted(table, key=lambda each: (-len(each), each)):
        if problem.startswith((key, f"the {key}")) or (
            key == "per" and problem.startswith(("a scope key", "the scope"))
        ):
            return (key,)
    return ()


def line_of(text: str, path: tuple[str, ...]) -> int:
    """The line on which a table or key is said first, counted from 1; that of the nearest table around it if it stands
    in the middle of a line."""
    best, depth = 1, 0
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        said = line.strip()
        if said.startswith("["):
            table = _path(said)
            here = table
        elif "=" in said and not said.startswith("#"):
            here = table + _path(f"{said.partition('=')[0]} = 0")
        else:
            continue
        common = 0
        while common < min(len(here), len(path)) and here[common] == path[common]:
            common += 1
        if common == min(len(here), len(path)) and common > depth:
            best, depth = number, common
    return best


def _path(said: str) -> tuple[str, ...]:
    """The path that a header or a key stands for."""
    try:
        value: Any = tomllib.loads(said)
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str] = []
    while isinstance(value, dict) and len(value) == 1:
        [(key, value)] = value.items()
        path.append(key)
    return tuple(path)
