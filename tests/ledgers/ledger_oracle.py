"""What a ledger must do, written for reading: no lock, no bound, brute force over every grant.

It shares nothing with the ledgers but the facts of the protocol. Every charge is kept apart (meter, call → amount), and
a balance is the sum of what is kept, so that nothing can be added or taken twice.
"""

from __future__ import annotations

from shekel.ledgers.base import Balance, Grant, Refusal


class Oracle:
    def __init__(self):
        self.holds = {}  # call → {"tokens": g, meter: amount, ...} under two keys
        self.charges = {}  # (meter, call) → amount, of the meter's present epoch only
        self.settled = {}  # call → meters whose present epoch the charge belongs to
        self.released = set()
        self.forgotten = set()  # meters that go when their holds end

    def settled_on(self, meter):
        return sum(amount for (name, _), amount in self.charges.items() if name == meter)

    def balance(self, meter, without=None):
        amounts = [
            hold["held"][meter] for call, hold in self.holds.items() if meter in hold["held"] and call != without
        ]
        return Balance(self.settled_on(meter), sum(amounts), len(amounts))

    def decide(self, call, need, want, lines):
        """The grant, or the refusal; `lines` already without repetitions."""
        before = {line.meter: self.balance(line.meter, without=call) for line in lines}

        def lack(line, g):
            balance = before[line.meter]
            return balance.settled + balance.held + line.base + g * line.rate - line.limit

        voters = [line for line in lines if line.limit is not None]
        fitting = [g for g in range(need, max(need, want) + 1) if all(lack(line, g) <= 0 for line in voters)]
        if fitting:
            return Grant(max(fitting))
        worst = max(lack(line, need) for line in voters)
        tightest = next(line for line in voters if lack(line, need) == worst)
        return Refusal(tightest, before[tightest.meter], tightest.base + need * tightest.rate)

    @staticmethod
    def firsts(lines):
        return [line for i, line in enumerate(lines) if line.meter not in [other.meter for other in lines[:i]]]

    def admit(self, call, need, want, lines):
        if call in self.holds:
            return Grant(self.holds[call]["tokens"])
        if call in self.settled or call in self.released:
            return Grant(0)
        lines = self.firsts(lines)
        decision = self.decide(call, need, want, lines)
        if isinstance(decision, Grant):
            held = {line.meter: line.base + decision.tokens * line.rate for line in lines}
            self.holds[call] = {"tokens": decision.tokens, "held": held}
        return decision

    def extend(self, call, need, want, lines, *, force=False):
        if call not in self.holds:
            return Grant(0)
        lines = self.firsts(lines)
        decision = self.decide(call, need, want, lines)
        if isinstance(decision, Refusal):
            if not force:
                return decision
            decision = Grant(need)
        hold = self.holds[call]
        for line in lines:
            amount = line.base + decision.tokens * line.rate
            hold["held"][line.meter] = max(amount, hold["held"].get(line.meter, amount))
        hold["tokens"] = max(hold["tokens"], decision.tokens)
        return decision

    def settle(self, call, amounts):
        if call in self.settled:
            for meter in amounts:
                # A meter that the settlement did not name is charged anew; one whose epoch has passed is not.
                if meter not in self.settled[call]:
                    self.settled[call][meter] = True
            for meter, current in self.settled[call].items():
                if current:
                    self.charges[meter, call] = amounts.get(meter, 0)
        else:
            hold = self.holds.pop(call, {"held": {}})
            self.released.discard(call)
            self.settled[call] = dict.fromkeys([*hold["held"], *amounts], True)
            for meter in self.settled[call]:
                self.charges[meter, call] = amounts.get(meter, 0)
        self.bury()

    def release(self, call):
        if call not in self.settled:
            self.holds.pop(call, None)
            self.released.add(call)
        self.bury()

    def reset(self, meter):
        for key in [key for key in self.charges if key[0] == meter]:
            del self.charges[key]
        for meters in self.settled.values():
            if meter in meters:
                meters[meter] = False

    def forget(self, meter):
        self.forgotten.add(meter)
        self.bury()

    def bury(self):
        for meter in [meter for meter in self.forgotten if self.balance(meter).holds == 0]:
            self.reset(meter)
            self.forgotten.discard(meter)
