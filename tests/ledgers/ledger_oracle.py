"""What a ledger must do, written for reading: no lock, no bound, brute force over every grant and every microsecond.

It shares nothing with the ledgers but the facts of the protocol. Every charge is kept apart, with its call and its
time, and a balance is the sum of what counts of them: nothing can be added or taken twice. Time does not go back here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import inf

from shekel.ledgers.base import Balance, Grant, Refusal


@dataclass(eq=False)
class Life:
    """A meter from its first hold or charge until it starts anew or is forgotten."""

    window: int = 0
    slides: bool = False
    until: int = 0
    touched: int = 0
    holds: set = field(default_factory=set)

    def is_over(self, now):
        idle = self.window and not self.slides and not self.holds
        return bool(idle) and now - self.touched >= self.window and now >= self.until

    def age_in_slots(self, stamp, now):
        return now * 64 // self.window - stamp * 64 // self.window


@dataclass(eq=False)
class Charge:
    life: Life
    stamp: int
    amount: int
    void: bool = False  # of an epoch that has passed

    def counts(self, now):
        return not self.void and not (self.life.slides and self.life.age_in_slots(self.stamp, now) > 64)


@dataclass(eq=False)
class Hold:
    tokens: int
    left_out: tuple
    short: tuple
    held: dict


class Oracle:
    def __init__(self):
        self.lives = {}  # meter → its present life
        self.holds = {}  # call → Hold
        self.settled = {}  # call → {meter: Charge}
        self.final = set()  # calls that were settled for good
        self.released = {}  # call → {meter: the life it held in}
        self.forgotten = set()  # meters that go when their holds end
        self.dropped = 0

    # What counts

    def charges(self, meter):
        life = self.lives.get(meter)
        return [each[meter] for each in self.settled.values() if meter in each and each[meter].life is life]

    def balance(self, meter, now, without=None):
        if meter in self.lives and self.lives[meter].is_over(now):
            return Balance()
        held = [hold.held[meter] for call, hold in self.holds.items() if meter in hold.held and call != without]
        return Balance(sum(each.amount for each in self.charges(meter) if each.counts(now)), sum(held), len(held))

    def exact(self, meter, now, parts):
        """What an exact sliding window of so many 64ths of the meter's length counts; None if it does not slide."""
        life = self.lives.get(meter)
        if life is None or not life.slides:
            return None
        window = life.window
        return sum(
            each.amount for each in self.charges(meter) if not each.void and (now - each.stamp) * 64 <= parts * window
        )

    def has_held(self, call):
        """The meters that a call holds or held on."""
        if call in self.holds:
            return set(self.holds[call].held)
        return set(self.settled.get(call, ())) | set(self.released.get(call, ()))

    # What is decided

    def lack(self, line, g, balance):
        return balance.settled + balance.held + line.base + g * line.rate - line.limit

    def frees_at(self, line, need, balance, now):
        life = self.lives.get(line.meter)
        if life is None or not life.slides:
            return None
        asked = line.base + need * line.rate
        counted = [each for each in self.charges(line.meter) if each.counts(now)]
        counted.append(Charge(life, now, balance.held))
        for then in range(now, now + 2 * life.window):
            if sum(each.amount for each in counted if each.counts(then)) + asked <= line.limit:
                return then
        return None

    def decide(self, call, need, want, lines, now, force):
        """The grant, or the refusal; `lines` already without repetitions."""
        before = {line.meter: self.balance(line.meter, now, without=call) for line in lines}
        voters = [line for line in lines if line.limit is not None and line.shadow is None]
        fitting = [
            g
            for g in range(need, max(need, want) + 1)
            if all(self.lack(line, g, before[line.meter]) <= 0 for line in voters)
        ]
        if not fitting and not force:
            lacks = {line: self.lack(line, need, before[line.meter]) for line in voters}
            lacking = [line for line in voters if lacks[line] > 0]
            shares = [Fraction(lacks[line], line.limit) if line.limit > 0 else inf for line in lacking]
            tightest = lacking[shares.index(max(shares))]
            balance = before[tightest.meter]
            asked = tightest.base + need * tightest.rate
            return Refusal(tightest, balance, asked, self.frees_at(tightest, need, balance, now))
        grant = max(fitting, default=need)
        left_out, short = [], []
        for group in dict.fromkeys(line.shadow for line in lines if line.shadow is not None):
            members = [line for line in lines if line.shadow == group]
            limited = [line for line in members if line.limit is not None]
            fitting = [
                g
                for g in range(need, grant + 1)
                if all(self.lack(line, g, before[line.meter]) <= 0 for line in limited)
            ]
            holds = call in self.holds and any(line.meter in self.holds[call].held for line in members)
            if not fitting and not (force and (holds or call not in self.holds)):
                left_out.append(group)
            elif max(fitting, default=need) < grant:
                short.append((group, max(fitting, default=need)))
        return Grant(grant, tuple(left_out), tuple(short))

    # The steps

    def admit(self, call, need, want, lines, now, *, force=False):
        if call in self.holds:
            return Grant(self.holds[call].tokens, self.holds[call].left_out, self.holds[call].short)
        if call in self.settled or call in self.released:
            return Grant(0)
        return self.hold(call, need, want, lines, now, force)

    def extend(self, call, need, want, lines, now, *, force=False):
        if call not in self.holds:
            return Grant(0)
        return self.hold(call, need, want, lines, now, force)

    def hold(self, call, need, want, lines, now, force):
        lines = [line for i, line in enumerate(lines) if line.meter not in [other.meter for other in lines[:i]]]
        decision = self.decide(call, need, want, lines, now, force)
        if isinstance(decision, Grant):
            hold = self.holds.setdefault(call, Hold(0, (), (), {}))
            for line in lines:
                if line.shadow is None or line.shadow not in decision.left_out:
                    tokens = dict(decision.short).get(line.shadow, decision.tokens)
                    amount = line.base + tokens * line.rate
                    hold.held[line.meter] = max(amount, hold.held.get(line.meter, 0))
                    life = self.life(line.meter, now, line)
                    life.holds.add(call)
                    life.touched = now
            hold.tokens = max(hold.tokens, decision.tokens)
            hold.left_out, hold.short = decision.left_out, decision.short
        return decision

    def life(self, meter, now, like):
        """The present life of a meter, or a new one with the window of a line, or of the life before."""
        life = self.lives.get(meter)
        if life is None or life.is_over(now):
            life = self.lives[meter] = Life(like.window, like.slides, like.until)
        return life

    def end(self, call, now):
        """End the holds of a call. Returns the lives it held in."""
        hold = self.holds.pop(call, None)
        lives = {meter: self.lives[meter] for meter in hold.held} if hold else {}
        for life in lives.values():
            life.holds.discard(call)
            life.touched = now
        return lives

    def settle(self, call, amounts, now, *, final=False):
        if call in self.final:
            return
        if final and call not in self.settled:
            self.final.add(call)
        if call in self.settled:
            for meter, charge in self.settled[call].items():
                new = amounts.get(meter, 0)
                self.dropped += charge.life.is_over(now) and new != charge.amount
                charge.amount = new
        else:
            lives = self.end(call, now)
            self.settled[call] = {m: Charge(life, now, amounts.get(m, 0)) for m, life in lives.items()}
        former = self.released.pop(call, {})
        for meter, amount in amounts.items():
            if meter not in self.settled[call]:
                life = former.get(meter, Life())
                if life.is_over(now):
                    self.dropped += amount != 0
                else:
                    life = self.life(meter, now, life)
                    life.touched = now
                self.settled[call][meter] = Charge(life, now, amount)
        self.bury()

    def correct(self, call, amounts, now):
        if call not in self.settled or call in self.final:
            return None
        known = list(self.settled[call])
        before = {meter: self.balance(meter, now).settled for meter in known}
        self.settle(call, {meter: amount for meter, amount in amounts.items() if meter in known}, now)
        moved = {meter: self.balance(meter, now).settled - before[meter] for meter in known}
        return {meter: by for meter, by in moved.items() if by}

    def release(self, call, now):
        if call not in self.settled:
            lives = self.end(call, now)
            self.released.setdefault(call, lives)
        self.bury()

    def reset(self, meter):
        for charge in self.charges(meter):
            charge.void = True

    def forget(self, meter):
        if meter in self.lives:
            self.forgotten.add(meter)
            self.bury()

    def bury(self):
        for meter in [meter for meter in self.forgotten if not self.lives[meter].holds]:
            self.reset(meter)
            self.forgotten.discard(meter)
            del self.lives[meter]
